"""One small experiment, wherever and however it runs: the losses of twenty steps.

The rates are small: at larger ones 1e-7 of the weights, changed at the start, changes
the loss by up to 2e-2 after twenty steps, with one worker too (docs/decisions.md).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from rrl_dist.training.cluster import session
from rrl_dist.training.journal import read_metrics
from rrl_dist.training.launch import launch
from tests.gloo import run_workers
from tests.longer import covering, long
from tests.training.stages import Stage, pretraining, train, train_workers, untrained

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray's own
]

STEPS = 20
ARMS = ("simclr", "deacl")
GENTLE = {
    "simclr": ["arms.simclr.optim.lr=0.01"],
    "deacl": [
        "arms.deacl.optim.lr=0.05",
        "arms.deacl.objective.ball.eps=0.005",
        "model.backbone.width=8",
        "data.size=16",
    ],
}
ZERO = [f"deepspeed_zero{stage}" for stage in range(4)]
DEBUG = {"kind": "debug", "workers": 1, "threads": 1, "gpu": "auto"}
LOCAL = {
    "kind": "local",
    "workers": 3,
    "threads": 1,
    "gpu": "auto",
    "max_failures": 0,
    "wait": 60,
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher, and the runs."""
    folder = tmp_path_factory.mktemp("agreement")
    untrained(folder / "teacher", *GENTLE["deacl"])
    return folder


@pytest.fixture(scope="module")
def local() -> Iterator[Mapping[str, Any]]:
    with session(LOCAL) as found:
        yield found


def small(arm: str, strategy: str, places: Path) -> Stage:
    values = {"batch_size": 96, "log_every": 1, "max_steps": STEPS, "epochs": 20}
    overrides = [f"arms.{arm}.train.{key}={value}" for key, value in values.items()]
    if strategy in ZERO:
        # At their defaults one bucket and no partition would hold this network.
        overrides.append("strategy.options.reduce_bucket_size=1000")
    if strategy == ZERO[3]:
        overrides.append("strategy.options.stage3_param_persistence_threshold=0")
    teacher = places / "teacher" if arm == "deacl" else None
    chosen = [f"strategy={strategy}", *overrides, *GENTLE[arm]]
    return pretraining(arm, *chosen, teacher=teacher)


def losses(folder: Path) -> list[float]:
    found = [line["loss"] for line in read_metrics(folder / "metrics.jsonl")]
    assert len(found) == STEPS
    return found


def processes(arm: str, strategy: str, workers: int, places: Path) -> list[float]:
    """Of so many gloo processes, run once."""
    folder = places / f"{arm}-{strategy}-{workers}"
    if not folder.is_dir():
        stage = small(arm, strategy, places)
        run_workers(workers, train_workers, stage, folder, False)
    return losses(folder)


def plain(arm: str, places: Path) -> list[float]:
    """One process, plain torch."""
    folder = places / f"{arm}-plain"
    if not folder.is_dir():
        train(small(arm, "single", places), folder)
    found = losses(folder)
    assert abs(found[-1] - found[0]) > 5e-3, "nothing is learned"
    return found


def gap(one: list[float], other: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(("arm", "strategy"), covering(ARMS, ["ddp", *ZERO]))
def test_strategies_and_numbers_of_workers_agree(
    arm: str, strategy: str, places: Path
) -> None:
    alone = plain(arm, places)
    one = processes(arm, strategy, 1, places)
    assert gap(one, alone) <= (0 if strategy == "ddp" else 1e-5)
    for workers in (2, 3):
        assert gap(processes(arm, strategy, workers, places), alone) <= 1e-4, workers


@pytest.mark.parametrize("strategy", ["single", *map(long, ZERO[:3]), ZERO[3]])
def test_debug_is_one_process(strategy: str, places: Path, tmp_path: Path) -> None:
    with session(DEBUG) as cluster:
        launch(small("deacl", strategy, places), tmp_path, cluster, print)
    allowed = 0 if strategy == "single" else 1e-5
    assert gap(losses(tmp_path), plain("deacl", places)) <= allowed


# What a strategy does is the same in any processes; one or two of DDP: test_launch.py.
@pytest.mark.parametrize(
    ("workers", "strategy"), [long(2, "deepspeed_zero3"), (3, "ddp")]
)
def test_ray_is_so_many_processes(
    workers: int,
    strategy: str,
    local: Mapping[str, Any],
    places: Path,
    tmp_path: Path,
) -> None:
    cluster = {**local, "workers": workers}
    launch(small("deacl", strategy, places), tmp_path, cluster, print)
    assert losses(tmp_path) == processes("deacl", strategy, workers, places)
