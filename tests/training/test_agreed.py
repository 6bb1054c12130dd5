"""Workers go on from one checkpoint, whatever each of them sees of a shared folder."""

import shutil
import time
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch

from rrl_dist.core.collectives import rank
from rrl_dist.core.errors import UserError
from rrl_dist.training.agreed import load_agreed
from rrl_dist.training.checkpoint import Checkpoints
from tests.gloo import run_workers
from tests.training.saved import saved

CPU = torch.device("cpu")


def state(step: int) -> dict[str, Any]:
    value = {"weight": torch.tensor(float(step))}
    return {"identity": "a", "step": step, "workers": 2, "objective": value}


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    for step in (2, 4):
        saved(tmp_path / "shared", step, state(step))
    return tmp_path / "shared"


def older(shared: Path) -> Path:
    """What another node still sees: step 2 alone."""
    seen = shared.with_name("seen")
    shutil.copytree(shared, seen)
    for file in seen.glob("step-00000004*"):
        file.unlink()
    return seen


def loaded(folder: Path, patience: float) -> Any:
    found = load_agreed(Checkpoints(folder, pytest.fail), CPU, patience)
    return None if found is None else found["step"]


def late(shared: Path, seconds: float, patience: float) -> Any:
    """On the second worker, files come after so many seconds."""
    if rank() == 0:
        return loaded(shared, patience)
    seen = shared.with_name("seen")

    def come() -> None:
        time.sleep(seconds)
        shutil.copytree(shared, seen, dirs_exist_ok=True)

    thread = Thread(target=come)
    thread.start()
    try:
        return loaded(seen, patience)
    except UserError as error:
        return str(error)
    finally:
        thread.join()


@pytest.mark.slow
def test_a_worker_waits_for_what_the_first_has_chosen(shared: Path) -> None:
    older(shared)
    assert run_workers(2, late, shared, 1.0, 60.0) == [4, 4]


@pytest.mark.slow
def test_files_that_are_never_seen_are_told_of(shared: Path) -> None:
    older(shared)
    first, second = run_workers(2, late, shared, 3.0, 1.0)
    assert first == 4
    assert "is seen by the first worker and not by another; set storage=" in second


def test_one_worker_loads_what_there_is(shared: Path, tmp_path: Path) -> None:
    assert loaded(shared, 0.0) == 4
    assert loaded(tmp_path / "nothing", 0.0) is None


def test_a_damaged_one_is_named(shared: Path) -> None:
    (part,) = shared.glob("step-00000004*.pt")
    part.write_bytes(part.read_bytes()[:-1])
    lines = list[str]()
    found = load_agreed(Checkpoints(shared, lines.append), CPU)
    assert found is not None
    assert found["step"] == 2
    (line,) = lines
    assert "step-00000004" in line
    assert line.endswith("is damaged; going back to the checkpoint before it")
