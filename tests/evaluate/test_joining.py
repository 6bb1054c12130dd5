"""A node that joins while an evaluation runs: its workers are used, beyond those that
were asked for at the start."""

import os
import signal
from pathlib import Path

import pytest

from tests.evaluate.chaos import check
from tests.evaluate.jobs import run as run_here
from tests.evaluate.kills import CLUSTER, Run
from tests.evaluate.nodes import CPUS, NoClusterError, Nodes, started_head
from tests.evaluate.witness import small_job

pytestmark = pytest.mark.slow

# The first node has no room for all, and the second for one more.
ASKED, MOST = CPUS + 1, 2 * CPUS


def processes(run: Run, node: str) -> list[int]:
    """Of a node's workers that have begun something."""
    return sorted({one.pid for one in run.executions if one.node == node})


def join(nodes: Nodes, run: Run) -> None:
    """Start the second node, and wait until all its workers are used; those of the
    first are halted meanwhile, or they might come to the end alone."""
    run.until(lambda: len(processes(run, "head")) == CPUS, "workers on the first node")
    here = processes(run, "head")
    for pid in here:
        os.kill(pid, signal.SIGSTOP)
    try:
        nodes.start_second()
        there = run.until(
            lambda: len(processes(run, nodes.name)) == CPUS, "workers of another node"
        )
        assert there, "ended before"
    finally:
        for pid in here:
            os.kill(pid, signal.SIGCONT)


def test_workers_of_a_node_that_joins_are_used(tmp_path: Path) -> None:
    run_here(small_job(tmp_path), tmp_path / "undisturbed")
    cluster = {**CLUSTER, "workers": ASKED, "max_workers": MOST}
    try:
        with started_head(print) as nodes:
            run = Run(nodes, tmp_path / "run", cluster)
            try:
                join(nodes, run)
                run.to_its_end()
            finally:
                run.close()
    except NoClusterError as error:
        pytest.skip(str(error))
    assert f"{ASKED}, but there is room for {CPUS} at present" in run.printed
    used = [processes(run, node) for node in ("head", nodes.name)]
    assert list(map(len, used)) == [CPUS, MOST - CPUS]
    assert check(run, tmp_path / "undisturbed").again == 0
