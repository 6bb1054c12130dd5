"""Workers that leave while the place of the copies is away."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rrl_dist.core.errors import UserError
from rrl_dist.training.attempts import newest_step
from rrl_dist.training.checkpoint_copy import CheckpointCopy
from rrl_dist.training.stage import train_stage
from rrl_dist.training.wishes import LeftError, Wish
from tests.training.stages import identified, pretraining


class Wished:
    """One wish, heard after the first step."""

    def __init__(self, wish: Wish) -> None:
        self.wish = wish

    def heard(self) -> Wish:
        return self.wish

    def preempted(self) -> bool:
        return False


@pytest.fixture(autouse=True)
def away(monkeypatch: pytest.MonkeyPatch) -> None:
    def update(*args: Any, **settings: Any) -> None:
        raise UserError("the place of the copies is away")

    monkeypatch.setattr(CheckpointCopy, "update", update)


def left(folder: Path, wish: Wish) -> None:
    stage = pretraining("simclr")
    settings = {**stage["train"]["checkpoints"], "copy": str(folder / "copies")}
    stage = identified({**stage, "train": {**stage["train"], "checkpoints": settings}})
    train_stage(
        stage,
        folder / "stage",
        device=torch.device("cpu"),
        after_epoch=lambda epoch: None,
        notify=lambda line: None,
        wishes=Wished(wish),
    )


@pytest.mark.parametrize("wish", [Wish.RESIZE, Wish.PREEMPTED])
def test_workers_that_others_follow_leave_without_a_copy(
    wish: Wish, tmp_path: Path
) -> None:
    with pytest.raises(LeftError, match=wish.name):
        left(tmp_path, wish)
    assert newest_step(tmp_path / "stage") == 1


def test_who_ends_for_long_is_told_that_there_is_no_copy(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is away"):
        left(tmp_path, Wish.STOP)
    assert newest_step(tmp_path / "stage") == 1
