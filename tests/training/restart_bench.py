"""Seconds from the kill of a worker to the first step after it, by this project's
groups and by Ray Train's own restart, in turn on the same nodes.

    python -m tests.training.restart_bench FOLDER [KILLS]
"""

import json
import os
import signal
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from rrl_dist.core.storage import read_json, write_json
from rrl_dist.training.cluster import session
from rrl_dist.training.group import trainer_of
from rrl_dist.training.journal import read_metrics
from rrl_dist.training.worker import ORDERS
from tests.training.nodes import Cluster, three_nodes
from tests.training.stages import pretraining
from tests.training.test_nodes_lost import Run

KILLS = 10
ENDLESS = ("arms.simclr.train.epochs=2000", "arms.simclr.train.log_every=1")


def ray_alone(orders: Path) -> None:
    """A driver that leaves restarts to Ray Train."""
    from ray.train.v2.api.config import FailureConfig

    told = read_json(orders)
    folder = Path(told["folder"])
    with session(told["cluster"]) as cluster:
        write_json(folder / ORDERS, {"group": "ray", "wish": "GO_ON"})
        trainer = trainer_of(told["stage"], folder, cluster, 2, "ray")
        trainer.run_config.failure_config = FailureConfig(max_failures=-1)
        trainer.fit()


class RayAlone(Run):
    """A stage whose driver leaves restarts to Ray Train."""

    module = "tests.training.restart_bench"


def last(folder: Path) -> int:
    lines = read_metrics(folder / "metrics.jsonl")
    return max((line["step"] for line in lines), default=0)


def seconds(run: Run, cluster: Cluster) -> float:
    """Of one kill, until a step is written that no worker of before has."""
    run.further(12)
    pids = [pid for node in cluster.nodes for pid in node.workers()]
    os.kill(pids[-1], signal.SIGKILL)
    begun = time.monotonic()
    for pid in pids:
        run.until(lambda pid=pid: not Path(f"/proc/{pid}").exists())  # type: ignore[misc]
    before = last(run.folder)
    run.until(lambda: last(run.folder) != before)
    # The next group's first worker drops the lines beyond its checkpoint.
    if (dropped := last(run.folder)) < before:
        run.until(lambda: last(run.folder) > dropped)
    return time.monotonic() - begun


def measured(
    kind: type[Run], cluster: Cluster, folder: Path, kills: int
) -> list[float]:
    stage = pretraining("simclr", "model.sync_bn=false", *ENDLESS)
    run = kind(cluster, stage, folder, max_failures=kills)
    try:
        return [seconds(run, cluster) for _ in range(kills)]
    finally:
        run.close()


def told(found: dict[str, list[float]]) -> dict[str, Any]:
    return {
        name: {"median": median(values), "worst": max(values), "all": sorted(values)}
        for name, values in found.items()
    }


def main(folder: Path, kills: int) -> None:
    with three_nodes() as cluster:
        found = {
            "groups": measured(Run, cluster, folder / "groups", kills),
            "ray": measured(RayAlone, cluster, folder / "ray", kills),
        }
    print(json.dumps(told(found), indent=2))


if __name__ == "__main__":
    if sys.argv[1].endswith(".json"):
        ray_alone(Path(sys.argv[1]))
    else:
        main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else KILLS)
