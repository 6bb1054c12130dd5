from pathlib import Path

import pytest
import torch

from rrl_dist.training.forecast import Forecast, as_text, forecast
from rrl_dist.training.rehearsal import UNTRAINED
from tests.training.stages import pretraining, train

SHAPE = {"size": 8, "num_classes": 10, "device": torch.device("cpu")}
WIDE = ("model.backbone.width=24", "arms.simclr.objective.projector.hidden=512")


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_disk_is_what_a_run_leaves(tmp_path: Path, optimizer: str) -> None:
    stage = pretraining(
        "simclr",
        f"optim@arms.simclr.optim={optimizer}",
        *WIDE,
        "arms.simclr.train.max_steps=2",
        "arms.simclr.train.checkpoint_every=1",
    )
    expected = forecast(stage, steps=2, workers=1, **SHAPE).disk
    train(stage, tmp_path)
    files = [tmp_path / "model.safetensors", *(tmp_path / "checkpoints").glob("*.pt")]
    assert len(files) == 3
    found = sum(file.stat().st_size for file in files)
    # Archives have headers, and the projector is in checkpoints alone.
    assert expected == pytest.approx(found, rel=0.25)


def test_memory_grows_with_a_workers_share_of_the_batch() -> None:
    one, two, large = (
        forecast(
            pretraining("simclr", f"arms.simclr.train.batch_size={batch_size}"),
            steps=10,
            workers=workers,
            **SHAPE,
        )
        for batch_size, workers in ((100, 1), (100, 2), (1000, 1))
    )
    assert two.memory < one.memory < large.memory
    # Of weights and optimizer each has its own.
    fixed = 2 * two.memory - one.memory
    assert fixed > 0
    assert large.memory - fixed == pytest.approx(10 * (one.memory - fixed), rel=0.01)
    assert min(one.hours, two.hours) > 0


def test_a_queue_takes_memory_on_every_worker_and_room_in_checkpoints() -> None:
    def needed(keys: int) -> Forecast:
        stage = pretraining(
            "simclr",
            "objective@arms.simclr.objective=moco",
            "arms.simclr.objective.projector.hidden=16",
            f"arms.simclr.objective.queue_size={keys}",
            "strategy=deepspeed_zero3",
        )
        return forecast(stage, steps=10, workers=4, **SHAPE)

    few, many = needed(1000), needed(9000)
    more = 8000 * 2 * 8 * 4  # keys, views, width of the small projector, bytes
    # Of each sample's logits, for two views, the backward keeps a few copies.
    logits = 192 / 4 * 8000 * 2 * 4
    assert more + logits <= many.memory - few.memory <= more + 4 * logits
    assert many.disk - few.disk == 2 * more


def test_a_model_that_is_not_there_yet_is_stood_in_for() -> None:
    stage = pretraining("deacl", teacher=UNTRAINED)
    found = forecast(stage, steps=10, workers=1, **SHAPE)
    assert found.disk > 0


def test_bytes_are_told_in_units_of_their_size() -> None:
    assert as_text(3 * 2**30) == "3.0 GB"
    assert as_text(5.4 * 2**20) == "5 MB"


def test_parts_and_zero_take_less_memory() -> None:
    def memory(*overrides: str) -> float:
        stage = pretraining("simclr", "arms.simclr.train.batch_size=200", *overrides)
        return forecast(stage, steps=10, workers=2, **SHAPE).memory

    whole = memory()
    assert memory("arms.simclr.train.micro_batch=10") < whole / 2
    stages = [memory(f"strategy=deepspeed_zero{stage}") for stage in range(4)]
    assert stages[0] == whole > stages[1] > stages[2] > stages[3]
    zero3 = "strategy=deepspeed_zero3"
    state, both = (memory(zero3, f"strategy.offload={o}") for o in ("optimizer", "all"))
    assert stages[3] > state > both
