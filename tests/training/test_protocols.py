"""Every protocol through a real training stage: what stays, and what workers change."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rrl_dist.training.build import load_encoder
from tests.composing import compose, names
from tests.gloo import run_workers
from tests.training.stages import Stage, probing, train, train_workers, untrained


def frozen(protocol: str) -> bool:
    """Whether the encoder is not trained."""
    own = compose("finetune", f"protocol={protocol}")["protocol"]["objective"]
    trained: bool = own.get("base", own)["train_encoder"]
    return not trained


FROZEN = [name for name in names("protocol") if frozen(name)]
TRAINED = [name for name in names("protocol") if name not in FROZEN]


def stage_of(protocol: str, encoder: Path, *overrides: str) -> Stage:
    few = ("protocol.train.batch_size=8",) if protocol.endswith("_1") else ()
    if protocol.endswith("_10"):
        few = ("protocol.train.batch_size=96",)
    return probing(encoder, f"protocol={protocol}", *few, *overrides)


def test_there_are_both_kinds() -> None:
    assert {"slf", "slf_small", "alf_pgd", "alf_trades", "slf_1"} <= set(FROZEN)
    assert {"aff_pgd", "aff_trades", "urrl"} <= set(TRAINED)


@pytest.mark.parametrize("protocol", FROZEN)
def test_a_frozen_encoder_is_the_same_to_the_last_bit(
    protocol: str, tmp_path: Path
) -> None:
    """Weights, and buffers of batch norm, which drift in train mode."""
    encoder = untrained(tmp_path / "encoder")
    train(stage_of(protocol, encoder), tmp_path / "probe")
    before = load_encoder(encoder)[0].state_dict()
    after = load_file(tmp_path / "probe/model.safetensors")
    assert sum("running_" in name or "num_batches" in name for name in before) >= 6
    for name, value in before.items():
        assert torch.equal(after[f"encoder.{name}"], value), name


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["slf", "alf_trades", "aff_pgd", "urrl"])
def test_a_result_does_not_depend_on_the_number_of_workers(
    protocol: str, tmp_path: Path
) -> None:
    encoder = untrained(tmp_path / "encoder")
    stage = stage_of(protocol, encoder, "cluster.threads=1")
    train(stage, tmp_path / "one")
    run_workers(2, train_workers, stage, tmp_path / "two", False)
    one, two = (load_file(tmp_path / n / "model.safetensors") for n in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_another_seed_trains_another_head(tmp_path: Path) -> None:
    encoder = untrained(tmp_path / "encoder")
    for seed in (0, 1):
        train(stage_of("slf", encoder, f"seed={seed}"), tmp_path / f"{seed}")
    one, other = (load_file(tmp_path / s / "model.safetensors") for s in ("0", "1"))
    assert not torch.equal(one["head.weight"], other["head.weight"])
