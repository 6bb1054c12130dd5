"""Two sweeps on one cluster, whose second node is lost while they run."""

import subprocess
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from rrl_dist.tune.record import Record
from rrl_dist.tune.search import search
from rrl_dist.tune.study import read_study
from tests.cli.harness import start
from tests.evaluate.nodes import NoClusterError, started_head
from tests.tune.small import SMALL, Lines, came_of, small_sweep

pytestmark = pytest.mark.slow

DEBUG = {"kind": "debug", "workers": 1, "threads": 1, "gpu": False}
PLAIN = ("sampler=random", "sweep.stop=none")
TRIALS = {0: 2, 1: 1}  # by the sweep's seed
# Longer trials, so that some are in flight when the node is lost.
LONGER = ("arms.spectral.train.epochs=12", "sweep.answer.seeds=0")
PATIENCE = 600


def settings(seed: int) -> tuple[str, ...]:
    return (*PLAIN, *LONGER, f"seed={seed}", f"sweep.trials={TRIALS[seed]}")


def records_of(folder: Path, seed: int) -> list[Record]:
    return read_study(folder / f"runs/small-{seed}/study.db", f"small-{seed}")[1]


def probed(folder: Path, seed: int) -> bool:
    """Whether one of its trials has told of a probe."""
    try:
        return any(record.looks for record in records_of(folder, seed))
    except Exception:  # its study is not there yet
        return False


def ended(process: "subprocess.Popen[str]") -> str:
    """End it if it still runs; returns what it printed and was not read."""
    process.kill()
    assert process.stdout is not None
    return "" if process.stdout.closed else process.communicate()[0]


def test_two_sweeps_lose_a_node_and_end_as_if_nothing_had_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cluster = ("cluster=auto", "cluster.workers=1", "cluster.threads=1")
    try:
        with ExitStack() as stack:
            nodes = stack.enter_context(started_head(print))
            nodes.start_second()
            nodes.wait_for_second()
            for name, value in nodes.environment.items():
                monkeypatch.setenv(name, value)
            running = []
            for seed in TRIALS:
                own = (*settings(seed), *on_cluster, f"name=small-{seed}")
                rest = (s for s in SMALL if not s.startswith("cluster"))
                running.append(start(tmp_path, "tune", *rest, *own))
                stack.callback(ended, running[-1])
            until = time.monotonic() + PATIENCE
            while not all(probed(tmp_path, seed) for seed in TRIALS):
                late = time.monotonic() > until
                gone = any(process.poll() is not None for process in running)
                assert not late, "".join(map(ended, running))
                assert not gone, "".join(map(ended, running))
                time.sleep(0.2)
            nodes.kill_second()
            for process in running:
                printed, _ = process.communicate(timeout=PATIENCE)
                assert process.returncode == 0, printed
    except NoClusterError as error:
        pytest.skip(str(error))
    for seed, trials in TRIALS.items():
        undisturbed = search(
            small_sweep(tmp_path / f"here-{seed}", *settings(seed)),
            lambda: DEBUG,
            Lines(),
        )
        assert came_of(records_of(tmp_path, seed)) == came_of(undisturbed)
        assert [record.state for record in undisturbed] == ["complete"] * trials
