"""Ctrl-C and SIGTERM: a checkpoint, a clean end, and the same command goes on."""

import os
import re
import signal
import time
import uuid
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from rrl_dist.core.storage import read_json
from tests.cli.harness import TINY, rrl, start
from tests.mistakes.listing import told
from tests.training.stages import measured

pytestmark = pytest.mark.slow

# Long enough to be stopped in, and without a checkpoint before its end.
PRETRAIN = (
    "pretrain",
    "name=one",
    "data=digits",
    "model=tiny_cnn",
    "model.backbone.width=4",
    "objective.projector.hidden=16",
    "views=digits",
    "probe=none",
    "loader=memory",
    "cluster.threads=1",
    "train.batch_size=120",
    "train.max_steps=200",
    "train.checkpoint_every=100000",
    "train.log_every=1",
)
HERE = (*PRETRAIN, "cluster=debug")
RAY = (*PRETRAIN, "cluster=local")
SECONDS = 30  # to end in, on a machine that does other things as well


class Run:
    """A command in a session of its own, as a terminal starts it."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.mark = uuid.uuid4().hex
        self.process = start(folder, *arguments, marked=self.mark, own_session=True)

    def wait_for(self, what: Callable[[], object]) -> None:
        limit = time.monotonic() + 200
        while not what():
            assert self.process.poll() is None, self.process.communicate()[0]
            assert time.monotonic() < limit
            time.sleep(0.02)

    def ends(self) -> str:
        """What it printed; it left no process behind and no traceback."""
        began = time.monotonic()
        printed, _ = self.process.communicate(timeout=120)
        assert time.monotonic() - began < SECONDS, printed
        assert self.process.returncode == 130, printed
        assert "Traceback" not in printed, printed
        while left := self.alive():
            assert time.monotonic() - began < SECONDS, left
            time.sleep(0.1)
        return printed

    def alive(self) -> list[str]:
        """Command lines of the processes that it started, and of its own."""
        mark, found = f"RRL_MARK={self.mark}".encode(), []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (folder / "environ").read_bytes():
                    found.append((folder / "cmdline").read_text())
            except OSError:
                continue
        return found

    def ctrl_c(self) -> None:
        """As a terminal sends it: to every process in front."""
        os.killpg(self.process.pid, signal.SIGINT)

    def terminate(self) -> None:
        """As a batch system does."""
        self.process.terminate()


def stage(folder: Path) -> Path:
    (found,) = (folder / "runs/one/stages").glob("pretrain-*")
    return found


def steps(folder: Path) -> int:
    found = [*(folder / "runs/one/stages").glob("pretrain-*/metrics.jsonl")]
    lines = measured(found[0].parent) if found else []
    return int(lines[-1]["step"]) if lines else 0


def saved(folder: Path) -> int:
    """The step of the newest checkpoint."""
    newest = max((stage(folder) / "checkpoints").glob("step-*.json"))
    return int(read_json(newest)["step"])


def left(folder: Path) -> tuple[bytes, list[dict[str, object]]]:
    """The model, bit for bit, and the losses."""
    found = stage(folder)
    return (found / "model.safetensors").read_bytes(), measured(found)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one worker that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole")
    rrl(folder, *HERE)
    return folder


def stop(folder: Path, command: tuple[str, ...], how: Callable[[Run], None]) -> str:
    """Stop it in the midst of its steps; returns the last line that it printed."""
    before = steps(folder)
    run = Run(folder, *command)
    run.wait_for(lambda: steps(folder) > before + 5)
    how(run)
    line = run.ends().strip().splitlines()[-1]
    step = int(re.fullmatch(r".*stopped after step (\d+) of 200;.*", line)[1])
    assert before < step < 200, "it was not stopped midway"
    assert saved(folder) == step
    return line


def goes_on(folder: Path, command: tuple[str, ...], whole: Path) -> None:
    """It repeats no step, and ends as the one that was not stopped."""
    step, before = saved(folder), (stage(folder) / "metrics.jsonl").read_text()
    rrl(folder, *command)
    after = (stage(folder) / "metrics.jsonl").read_text()
    assert after.startswith(before)
    assert before.count("\n") == step
    assert left(folder) == left(whole)


def test_here(tmp_path: Path, whole: Path) -> None:
    line = stop(tmp_path, HERE, Run.ctrl_c)
    stop(tmp_path, HERE, Run.terminate)
    goes_on(tmp_path, HERE, whole)
    line = re.sub(r"step \d+", "step 29", line)
    told("Ctrl-C in training", "rrl pretrain name=one ...", line)


def test_under_ray(tmp_path: Path, whole: Path) -> None:
    stop(tmp_path, RAY, Run.ctrl_c)
    # One worker is one worker, wherever it is.
    goes_on(tmp_path, HERE, whole)


def test_asked_twice_it_ends_at_once(tmp_path: Path) -> None:
    # A step of 1200 images of 128 px takes minutes here.
    slow = ("data.size=128", "model.backbone.width=64", "train.batch_size=1200")
    run = Run(tmp_path, *HERE, *slow)
    run.wait_for(lambda: any(tmp_path.glob("runs/one/stages/*/metrics.jsonl")))
    run.ctrl_c()
    time.sleep(1)
    assert run.process.poll() is None
    run.ctrl_c()
    printed = run.ends()
    assert "Ctrl-C once more ends at once" in printed
    assert printed.strip().endswith("rrl pretrain: stopped; the same command goes on")
    assert steps(tmp_path) == 0


def test_in_other_stages_nothing_finished_is_lost(tmp_path: Path) -> None:
    command, suite = ("run", *TINY), "runs/demo/stages/evaluate-simclr-*/rows/*/"
    if find_spec("ffcv") is not None:
        run = Run(tmp_path, *command, "cluster=debug")
        run.wait_for(lambda: any((tmp_path / "betons").glob(".digits-*")))
        run.ctrl_c()
        run.ends()
        assert not any((tmp_path / "betons").iterdir())
    written: dict[Path, int] = {}
    for where, how in (("debug", Run.ctrl_c), ("local", Run.terminate)):
        run = Run(tmp_path, *command, f"cluster={where}")
        run.wait_for(lambda: len([*tmp_path.glob(suite + "*.parquet")]) > len(written))
        how(run)
        assert run.ends().strip().endswith("stopped; the same command goes on")
        for file in tmp_path.glob(suite + "*.parquet"):
            assert written.setdefault(file, file.stat().st_mtime_ns)
    rrl(tmp_path, *command, "cluster=debug")
    assert {file: file.stat().st_mtime_ns for file in written} == written
    assert len([*tmp_path.glob(suite + "*.parquet")]) > len(written)
