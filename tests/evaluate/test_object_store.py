"""An evaluation whose rows are in a bucket, on a real S3 server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from rrl_dist.attacks import Linf
from rrl_dist.core.errors import UserError
from rrl_dist.core.lease import held
from rrl_dist.core.records import from_bytes, rows_of
from rrl_dist.core.store import open_store
from rrl_dist.evaluate import evaluate
from rrl_dist.evaluate.stage import store_below
from rrl_dist.evaluate.status import Status
from tests.core.s3 import s3_server

pytestmark = pytest.mark.slow

PGD = {
    "_target_": "rrl_dist.attacks.projected_gradient.PGD",
    "steps": 3,
    "relative_step": 0.4,
    "restarts": 1,
    "random_start": True,
}
SUITE: dict[str, Any] = {"attacks": {"pgd": PGD}, "micro_batch": 16, "curve": None}


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    with s3_server() as address:
        yield address


@pytest.fixture(scope="module")
def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 6, 4)).eval()


@pytest.fixture(scope="module")
def data(model: nn.Module) -> TensorDataset:
    x = torch.rand(200, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return TensorDataset(x, model(x).argmax(1))


def test_it_is_as_in_a_folder_and_goes_on_after_a_stop(
    bucket: str, model: nn.Module, data: TensorDataset, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"ball": Linf(0.03), "suite": SUITE, "threads": 1}
    here = evaluate(model, data, out=tmp_path, **settings)

    class StoppedError(Exception):
        pass

    def stop(status: Status) -> None:
        if status.settled > 200:
            raise StoppedError

    there = store_below(bucket, "one")
    body, mark, options = bucket.partition("?")
    out = f"{body}/one{mark}{options}"
    with pytest.raises(StoppedError):
        evaluate(model, data, out=out, watch=stop, **settings)
    begun = {name: there.read(name) for name in there.names("rows")}
    assert 0 < len(begun) < 8
    assert evaluate(model, data, out=out, **settings) == here
    assert there.read("results.json") == (tmp_path / "results.json").read_bytes()
    assert begun.items() <= {n: there.read(n) for n in there.names("rows")}.items()
    for name in there.names("samples"):
        mine, theirs = (
            [r.margin for r in rows_of(from_bytes(content, name)[0])]
            for content in ((tmp_path / name).read_bytes(), there.read(name))
        )
        assert mine == theirs


def test_a_second_command_is_refused(
    bucket: str, model: nn.Module, data: TensorDataset
) -> None:
    store = store_below(bucket, "two")
    body, mark, options = bucket.partition("?")
    with held(store, beat=0.5), pytest.raises(UserError, match="held by another"):
        evaluate(
            model,
            data,
            out=f"{body}/two{mark}{options}",
            ball=Linf(0.03),
            suite=SUITE,
            threads=1,
        )


def test_the_name_comes_before_the_options() -> None:
    address = "s3://bucket/rows/?endpoint_override=127.0.0.1:1&scheme=http"
    made = store_below(address, "run/evaluate-x")
    wanted = "s3://bucket/rows/run/evaluate-x?endpoint_override=127.0.0.1:1&scheme=http"
    assert made.address == wanted
    assert (
        store_below("/tmp/rows", "run").address == open_store("/tmp/rows/run").address
    )
