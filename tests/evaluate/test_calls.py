"""`rrl_dist.evaluate.evaluate`: any module on any data set, from Python."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from rrl_dist import attacks
from rrl_dist.attacks import L1, L2, Linf, autoattack
from rrl_dist.core.aggregate import wilson
from rrl_dist.core.errors import UserError
from rrl_dist.core.records import from_bytes, rows_of
from rrl_dist.core.storage import read_json
from rrl_dist.evaluate import evaluate
from rrl_dist.evaluate.settings import check_address
from rrl_dist.evaluate.status import Status

BALL = Linf(0.06)
PGD = {
    "_target_": "rrl_dist.attacks.projected_gradient.PGD",
    "steps": 4,
    "relative_step": 0.3,
    "restarts": 1,
    "random_start": True,
}
SUITE: dict[str, Any] = {"attacks": {"pgd": PGD}, "micro_batch": 16, "curve": None}


class Net(nn.Module):
    """Linear, so that about half of its answers fall to the attack."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3 * 6 * 6, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(x).flatten(1))


@pytest.fixture(scope="module")
def net() -> Net:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return Net().eval()


@pytest.fixture(scope="module")
def data(net: Net) -> TensorDataset:
    """Labels that the model mostly agrees with."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(150, 3, 6, 6, generator=generator)
    with torch.no_grad():
        y = net(x).argmax(1)
    y[::10] = (y[::10] + 1) % 4
    return TensorDataset(x, y)


def test_it_tells_what_the_attack_does_on_all_images_at_once(
    net: Net, data: TensorDataset, tmp_path: Path
) -> None:
    found = evaluate(net, data, ball=BALL, suite=SUITE, out=tmp_path, threads=1)
    assert found == read_json(tmp_path / "results.json")
    settings = {k: v for k, v in PGD.items() if k != "_target_"}
    x, y = data.tensors
    attack = attacks.PGD(ball=BALL, seed=0, micro_batch=16, **settings)
    with torch.no_grad():
        right = net(attack(net, x, y)).argmax(1) == y
    assert found["worst"] == wilson(int(right.sum()), 150).as_dict()
    assert found["components"]["clean"]["value"] == pytest.approx(0.9, abs=1e-6)
    assert 0.1 < found["worst"]["value"] < 0.8
    file = tmp_path / "samples" / "pgd4-linf@0.06.parquet"
    rows = rows_of(from_bytes(file.read_bytes(), "x")[0])
    assert [row.index for row in rows] == list(range(150))
    assert [row.correct for row in rows] == right.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("ball", [Linf(0.03), L2(0.3), L1(3.0)])
def test_autoattack_is_the_call_of_the_attacks(
    net: Net, data: TensorDataset, tmp_path: Path, ball: Any
) -> None:
    few = TensorDataset(*(column[:12] for column in data.tensors))
    seen: list[Status] = []
    found = evaluate(net, few, ball=ball, out=tmp_path, threads=1, watch=seen.append)
    details = autoattack(net, *few.tensors, ball=ball, details=True)
    (name,) = set(found["components"]) - {"clean"}
    after = found["components"][name]["after"]
    left, flags = [], torch.ones(12, dtype=torch.bool)
    for stage in details.stages:
        flags = flags & ~stage.wrong
        left.append(round(float(flags.double().mean()), 6))
    assert [step["value"] for step in after] == left
    assert (seen[0].settled, seen[-1].settled, seen[-1].total) == (0, 24, 24)
    assert seen[-1].components[name].broken == 12 - int(details.robust.sum())


def test_the_model_is_given_back_as_it_was(data: TensorDataset, tmp_path: Path) -> None:
    model = Net().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluate(model, data, ball=BALL, suite=SUITE, out=tmp_path, threads=1, limit=20)
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_it_goes_on_where_it_was_and_refuses_what_is_another(
    net: Net, data: TensorDataset, tmp_path: Path
) -> None:
    class StoppedError(Exception):
        pass

    def stop(status: Status) -> None:
        if status.settled > 100:
            raise StoppedError

    settings: dict[str, Any] = {"ball": BALL, "suite": SUITE, "threads": 1}
    with pytest.raises(StoppedError):
        evaluate(net, data, out=tmp_path / "a", watch=stop, **settings)
    begun = list((tmp_path / "a/rows").rglob("*.parquet"))
    times = {file: file.stat().st_mtime_ns for file in begun}
    assert begun
    first = evaluate(net, data, out=tmp_path / "a", **settings)
    whole = evaluate(net, data, out=tmp_path / "b", **settings)
    assert first == whole
    assert {file: file.stat().st_mtime_ns for file in begun} == times
    other = Net().eval()
    with pytest.raises(UserError, match="another weights; choose another name="):
        evaluate(other, data, out=tmp_path / "a", **settings)
    with pytest.raises(UserError, match="another ball;"):
        evaluate(net, data, out=tmp_path / "a", **{**settings, "ball": Linf(0.01)})
    flipped = TensorDataset(1 - data.tensors[0], data.tensors[1])
    with pytest.raises(UserError, match="another images;"):
        evaluate(net, flipped, out=tmp_path / "a", **settings)


def test_it_ends_early_and_says_what_was_not_attacked(
    net: Net, data: TensorDataset, tmp_path: Path
) -> None:
    many = TensorDataset(*(torch.cat([column] * 4) for column in data.tensors))
    settings: dict[str, Any] = {"ball": BALL, "suite": SUITE, "threads": 1}
    settings |= {"stop_when": "below 0.75 with 95 %"}
    found = evaluate(net, many, out=tmp_path / "a", stop_every=64, **settings)
    stopped = found["stopped"]
    assert stopped["rule"] == "below 0.75 with 95 %"
    attacked = stopped["attacked"]
    assert attacked % 64 == 0
    assert attacked + stopped["not_attacked"] == 600 == len(many)
    assert attacked < 600
    assert found["worst"]["count"] == attacked
    assert found["worst"]["high"] < 0.75
    # What is attacked does not depend on how units are cut.
    again = evaluate(
        net, many, out=tmp_path / "b", stop_every=64, unit_seconds=1e-9, **settings
    )
    assert again == found
    # Without the rule the same rows go on to the end, where Wilson's interval is told.
    times = {f: f.stat().st_mtime_ns for f in (tmp_path / "a/rows").rglob("*.parquet")}
    settings["stop_when"] = None
    whole = evaluate(net, many, out=tmp_path / "a", **settings)
    assert (whole["stopped"], whole["worst"]["count"]) == (None, 600)
    assert {file: file.stat().st_mtime_ns for file in times} == times
    assert found["worst"]["low"] <= whole["worst"]["value"] <= found["worst"]["high"]


def test_a_rule_that_is_never_met_attacks_all(
    net: Net, data: TensorDataset, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"ball": BALL, "suite": SUITE, "threads": 1}
    never = evaluate(
        net, data, out=tmp_path / "a", stop_when="above 0.99", stop_every=64, **settings
    )
    assert never == evaluate(net, data, out=tmp_path / "b", **settings)


def test_attacked_images_are_kept_on_request(
    net: Net, data: TensorDataset, tmp_path: Path
) -> None:
    evaluate(
        net, data, ball=BALL, suite=SUITE, out=tmp_path, threads=1, keep_images=True
    )
    kept: dict[int, np.ndarray] = {}
    for file in (tmp_path / "images/pgd4-linf@0.06").iterdir():
        with np.load(file) as arrays:
            pairs = zip(arrays["index"].tolist(), arrays["images"], strict=True)
            kept |= dict(pairs)
    assert sorted(kept) == list(range(150))
    x_adv = torch.from_numpy(np.stack([kept[i] for i in range(150)]))
    x, y = data.tensors
    assert float((x_adv - x).abs().max()) <= 0.06 * (1 + 1e-5)
    file = tmp_path / "samples" / "pgd4-linf@0.06.parquet"
    rows = rows_of(from_bytes(file.read_bytes(), "x")[0])
    with torch.no_grad():
        right = net(x_adv).argmax(1) == y
    assert [row.correct for row in rows] == right.tolist()


class Scaled(nn.Module):
    """Answers of `Net`, as a function makes them."""

    def __init__(self, net: nn.Module, how: Any) -> None:
        super().__init__()
        self.net, self.how = net, how

    def forward(self, x: Tensor) -> Tensor:
        answered: Tensor = self.how(self.net(x))
        return answered


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"model": lambda z: z.softmax(1)}, "returns probabilities"),
        ({"model": lambda z: z[:, :3]}, "returns 3 logits, and the data set has 4"),
        ({"model": lambda z: z / 0}, "not finite"),
        ({"model": lambda z: z.sum()}, r"."),
        ({"x": lambda x: 255 * x}, r"item 0 of the data set goes from .*\[0, 1\]"),
        ({"x": lambda x: x[:, :1]}, r"give \[3, H, W\] tensors"),
        ({"x": lambda x: x[:0]}, "no items"),
        ({"y": lambda y: y - 2}, "labels go from -1"),
        ({"suite": "autoatack"}, "there is no suite=autoatack; choose autoattack"),
        ({"suite": "transfer"}, "suite.surrogates names models on disk"),
        ({"suite": "representation"}, "attacks an encoder's features"),
        ({"stop_when": "soon"}, "evaluate.stop_when"),
        ({"limit": 0}, "evaluate.limit=0"),
        ({"ball": 8 / 255}, r"such as Linf\(8 / 255\)"),
    ],
)
def test_mistakes_are_told_in_one_line(
    net: Net, data: TensorDataset, tmp_path: Path, change: dict[str, Any], match: str
) -> None:
    model = Scaled(net, change["model"]).eval() if "model" in change else net
    same = Scaled(net, lambda value: value).how
    x, y = data.tensors
    x, y = change.get("x", same)(x), change.get("y", same)(y)
    given = TensorDataset(x, y[: len(x)])
    others = {k: v for k, v in change.items() if k not in ("model", "x", "y")}
    settings: dict[str, Any] = {"ball": BALL, "suite": SUITE, "threads": 1, **others}
    with pytest.raises(UserError, match=match) as caught:
        evaluate(model, given, out=tmp_path / "out", **settings)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out/rows").exists()


class Unread:
    """A data set that nobody may look at."""

    def __len__(self) -> int:
        raise AssertionError("it was looked at")

    def __getitem__(self, place: int) -> Any:
        raise AssertionError("it was read")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"workers": -1}, "^workers=-1; set 0 for this process, or a number$"),
        ({"threads": 0}, "^threads=0; set at least 1"),
        ({"stop_every": 0}, "^evaluate.stop_every=0; set a whole number"),
        ({"stop_every": 2.5}, "^evaluate.stop_every=2.5; set a whole number"),
        ({"unit_seconds": -1}, "^evaluate.unit_seconds=-1; set seconds above 0"),
        ({"unit_seconds": float("nan")}, "^evaluate.unit_seconds=nan; set seconds"),
        ({"limit": -3}, "^evaluate.limit=-3; set at least 1"),
        ({"stop_when": "half_width<0.9"}, '^evaluate.stop_when="half_width<0.9"'),
        ({"out": "s3//b"}, '^out=s3//b is no address; write "s3://b", as text$'),
        ({"out": "GS:/b/c"}, '^out=GS:/b/c is no address; write "gs://b/c"'),
        ({"out": Path("s3://b/c")}, '^out=s3:/b/c is no address; write "s3://b/c"'),
        ({"suite": "autoatack"}, "there is no suite=autoatack"),
    ],
)
def test_settings_are_refused_before_data_are_read(
    net: Net,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    match: str,
) -> None:
    monkeypatch.chdir(tmp_path)  # where a folder of a wrong name would be made
    settings: dict[str, Any] = {"ball": BALL, "suite": SUITE, "out": "x", **change}
    with pytest.raises(UserError, match=match) as caught:
        evaluate(net, Unread(), **settings)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("out", ["s3", "gsm//x", "files:x", "runs//x"])
def test_other_names_of_folders_are_taken(out: str) -> None:
    check_address("out", out)


@pytest.mark.slow
def test_two_workers_find_the_same(
    net: Net, data: TensorDataset, tmp_path: Path
) -> None:
    """The class is of this file, which workers know by the driver's own paths."""
    settings: dict[str, Any] = {"ball": BALL, "suite": SUITE, "threads": 1}
    settings |= {"verdict": True, "verdict_images": 20}
    here = evaluate(net, data, out=tmp_path / "a", **settings)
    there = evaluate(net, data, out=tmp_path / "b", workers=2, **settings)
    assert there == here
    results = "results.json"
    mine, theirs = (tmp_path / name / results for name in ("a", "b"))
    assert mine.read_bytes() == theirs.read_bytes()
