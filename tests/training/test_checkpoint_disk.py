"""What checkpoints will take is known, and held against the room that there is."""

import shutil
from pathlib import Path

import pytest

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import write_json
from rrl_dist.training.checkpoint_disk import Need, check_disk
from rrl_dist.training.rehearsal import rehearse
from tests.training.stages import pretraining, train


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_rehearsal_knows_the_size_of_a_checkpoint(
    tmp_path: Path, optimizer: str
) -> None:
    stage = pretraining(
        "simclr",
        f"optim@arms.simclr.optim={optimizer}",
        "arms.simclr.objective.projector.hidden=512",
        "arms.simclr.train.max_steps=1",
        "arms.simclr.train.checkpoints.keep=3",
    )
    need = rehearse("pretrain", stage, size=8, num_classes=10, workers=1)
    train(stage, tmp_path)
    (written,) = (tmp_path / "checkpoints").glob("*.pt")
    assert need.most == 3
    assert need.one <= written.stat().st_size < 1.5 * need.one  # archives have headers


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "one"


def test_what_fits_is_let_pass(run: Path) -> None:
    check_disk(run, [])
    check_disk(run, [Need(1000, 2)] * 5)
    assert not run.parent.exists()


@pytest.mark.parametrize(
    "needs",
    [[Need(10**18, 1)], [Need(1000, 2), Need(10**15, 2)], [Need(10**15, 1)] * 3],
)
def test_what_does_not_is_told_in_one_line(run: Path, needs: list[Need]) -> None:
    with pytest.raises(UserError, match="make room there") as told:
        check_disk(run, needs)
    assert "\n" not in str(told.value)
    assert str(run) in str(told.value)


def half(run: Path) -> list[Need]:
    """A stage whose checkpoints take half of the room each."""
    run.mkdir(parents=True)
    return [Need(shutil.disk_usage(run).free // 2, 2)]


def test_what_is_there_is_counted(run: Path) -> None:
    needs = half(run)
    with pytest.raises(UserError):
        check_disk(run, needs)
    folder = run / "stages" / "pretrain-x-1" / "checkpoints"
    folder.mkdir(parents=True)
    # Of the other one a kill has left a half.
    for name in ("step-1-a.pt", ".step-2-b.pt.0123"):
        with (folder / name).open("wb") as file:
            file.truncate(needs[0].one)  # it takes no room itself
    check_disk(run, needs)


def test_what_is_done_needs_none(run: Path) -> None:
    needs = half(run)
    write_json(run / "stages" / "pretrain-x-1" / "done.json", {})
    check_disk(run, needs)
    with pytest.raises(UserError):
        check_disk(run, needs * 2)
