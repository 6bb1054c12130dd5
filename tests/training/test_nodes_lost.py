"""Three nodes train, and workers, nodes and the driver are lost on the way."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from rrl_dist.core.storage import write_json
from rrl_dist.training.attempts import newest_step
from tests.evaluate.nodes import NoClusterError
from tests.gloo import run_workers
from tests.training.nodes import PATIENCE, Cluster, Node, three_nodes
from tests.training.slow import lines_of, paused, steps_again
from tests.training.stages import (
    BATCH,
    Stage,
    differences,
    measured,
    pretraining,
    train_workers,
)

pytestmark = pytest.mark.slow

AUTO = {
    "kind": "auto",
    "workers": 2,
    "threads": 1,
    "gpu": False,
    "max_failures": 3,
    "min_workers": None,
    "wait": 300,
}
# Each step is a line, since workers that leave write what they have.
LONG = ("arms.simclr.train.epochs=8", "arms.simclr.train.log_every=1")
STEPS = 72
LONGER = ("arms.simclr.train.epochs=12", LONG[1])
# Steps that a loss costs at most: since the last checkpoint, of four steps, where one
# was being written.
AGAIN = 8


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    try:
        with three_nodes() as found:
            yield found
    except NoClusterError as error:
        pytest.skip(str(error))


class Run:
    """A stage and its driver."""

    module = "tests.training.driver"

    def __init__(
        self, cluster: Cluster, stage: Stage, folder: Path, **changes: Any
    ) -> None:
        self.nodes, self.folder = cluster, folder / "stage"
        self.log = folder / "log.txt"
        self.stage = paused(stage, self.log)
        self.orders, self.printed = folder / "orders.json", folder / "printed.txt"
        self.folder.mkdir(parents=True)
        told = {
            "stage": self.stage,
            "folder": str(self.folder),
            "cluster": AUTO | changes,
        }
        write_json(self.orders, told)
        self.start()

    def start(self) -> None:
        with self.printed.open("ab") as out:
            self.driver = subprocess.Popen(
                [sys.executable, "-m", self.module, str(self.orders)],
                env=self.nodes.environment,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert self.driver.poll() is None, self.printed.read_text()
            assert time.monotonic() < deadline, self.printed.read_text()
            time.sleep(0.05)

    def further(self, steps: int) -> int:
        """Wait for so many steps more to be saved; returns the newest."""
        begun = newest_step(self.folder) or 0
        self.until(lambda: (newest_step(self.folder) or 0) >= begun + steps)
        return newest_step(self.folder) or 0

    def to_its_end(self) -> str:
        status = self.driver.wait(PATIENCE)
        assert status == 0, self.printed.read_text()
        return self.printed.read_text()

    def again(self, *, after: int = 0) -> float:
        """Steps that were done again so far, among the log's lines after so many."""
        return steps_again(self.log, BATCH, after=after)

    def undisturbed(self, folder: Path, workers: int) -> Path:
        """Of a run of the same stage that is left alone."""
        run_workers(workers, train_workers, self.stage, folder, False)
        return folder

    def close(self) -> None:
        self.driver.kill()
        self.driver.wait()


@pytest.fixture
def run(cluster: Cluster, tmp_path: Path) -> Iterator[Callable[..., Run]]:
    made: list[Run] = []

    def begin(stage: Stage, **changes: Any) -> Run:
        for node in cluster.others:
            if node.processes[-1].poll() is not None:
                cluster.join(node)
        made.append(Run(cluster, stage, tmp_path / f"run{len(made)}", **changes))
        return made[-1]

    yield begin
    for one in made:
        one.close()


def kill_a_worker(cluster: Cluster) -> None:
    pids = [pid for node in cluster.nodes for pid in node.workers()]
    os.kill(pids[-1], signal.SIGKILL)


def gone_on_from(printed: str, why: str) -> list[int]:
    """The steps that groups began with that followed others."""
    found = re.findall(rf"^{why}.*; going on from step (\d+)$", printed, re.MULTILINE)
    return [int(step) for step in found]


def assert_was_cut(node: Node) -> None:
    if not node.space:
        pytest.skip("no right to network namespaces: a node was killed, not cut off")


def test_nothing_that_is_lost_changes_the_result(
    cluster: Cluster, run: Callable[..., Run], tmp_path: Path
) -> None:
    """A worker, the driver, and a node with another at hand, one after the other."""
    going = run(pretraining("simclr", "model.sync_bn=false", *LONG))

    def restart_driver() -> None:
        going.close()
        going.start()

    def cut_a_node() -> None:
        cut.append(cluster.used()[0])
        cut[0].cut()

    cut, saved, again = list[Node](), list[int](), [0.0]
    for fault in (lambda: kill_a_worker(cluster), restart_driver, cut_a_node):
        saved.append(going.further(8))
        again.append(going.again())
        fault()
    printed = going.to_its_end()
    again.append(going.again())
    first, second = gone_on_from(printed, "workers were lost")
    assert first >= saved[0]
    assert second >= saved[2]
    assert max(b - a for a, b in pairwise(again)) <= AGAIN
    undisturbed = going.undisturbed(tmp_path / "undisturbed", 2)
    assert differences(going.folder, undisturbed) == []
    cluster.join(cut[0])
    assert_was_cut(cut[0])


def losses(folder: Path) -> Mapping[int, float]:
    return {line["step"]: line["loss"] for line in measured(folder) if "loss" in line}


def probes(folder: Path) -> list[dict[str, Any]]:
    return [line for line in measured(folder) if "knn_acc" in line]


def test_a_group_shrinks_without_a_node_and_grows_with_it(
    cluster: Cluster, run: Callable[..., Run], tmp_path: Path
) -> None:
    going = run(pretraining("simclr", *LONGER, probed=True), workers=3, min_workers=1)
    saved, node = going.further(8), cluster.used()[0]
    node.cut()
    going.until(lambda: "workers were lost" in going.printed.read_text())
    going.further(4)  # by those that are left
    assert sum(len(one.workers()) for one in cluster.nodes if one is not node) == 2
    assert going.again() <= AGAIN
    so_far = len(lines_of(going.log))
    cluster.join(node)
    printed = going.to_its_end()
    (lost,) = gone_on_from(printed, "workers were lost")
    (grown,) = gone_on_from(printed, "there is room for more workers")
    assert saved <= lost < grown < STEPS
    assert going.again(after=so_far) == 0
    undisturbed = going.undisturbed(tmp_path / "undisturbed", 3)
    here, there = losses(going.folder), losses(undisturbed)
    assert here.keys() == there.keys()
    assert max(there) == STEPS
    for step, loss in there.items():
        assert here[step] == pytest.approx(loss, rel=1e-3)
    mine, other = (probes(folder)[-1] for folder in (going.folder, undisturbed))
    assert other["robust_low"] <= mine["robust_acc"] <= other["robust_high"]
    assert mine["linear_acc"] == pytest.approx(other["linear_acc"], abs=0.05)
    assert_was_cut(node)


def test_zero_2_loses_a_worker_and_leaves_a_node_before_it_is_taken_away(
    cluster: Cluster, run: Callable[..., Run], tmp_path: Path
) -> None:
    zero = ("strategy=deepspeed_zero2", "optim@arms.simclr.optim=adamw")
    going = run(pretraining("simclr", *LONG, *zero))
    saved = going.further(8)
    kill_a_worker(cluster)
    going.until(lambda: "workers were lost" in going.printed.read_text())
    going.further(4)
    assert going.again() <= AGAIN
    so_far = len(lines_of(going.log))
    with cluster.preempt(cluster.used()[0], seconds=60) as notice:
        printed = going.to_its_end()
        notice.kill()
    (lost,) = gone_on_from(printed, "workers were lost")
    (left,) = gone_on_from(printed, "a node is about to be taken away")
    assert saved <= lost < left
    assert going.again(after=so_far) == 0
    undisturbed = going.undisturbed(tmp_path / "undisturbed", 2)
    assert differences(going.folder, undisturbed) == []
