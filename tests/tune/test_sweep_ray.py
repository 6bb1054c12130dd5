"""Trials as processes of Ray Tune, which train by Ray Train."""

import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from rrl_dist.core.errors import UserError
from rrl_dist.training.cluster import session
from rrl_dist.tune.search import at_once, search
from rrl_dist.tune.sweep import Scheduler
from tests.tune.small import Lines, came_of, small_sweep

LOCAL = {
    "kind": "local",
    "workers": 1,
    "threads": 1,
    "gpu": False,
    "max_failures": 1,
    "wait": 60,
}
DEBUG = {"kind": "debug", "workers": 1, "threads": 1, "gpu": False}
ON_RAY = ("cluster=local", "cluster.threads=1", "cluster.gpu=false")
PLAIN = ("sampler=random", "sweep.stop=none", "sweep.trials=2")


@pytest.fixture(scope="module")
def local() -> Iterator[Mapping[str, Any]]:
    with session(LOCAL) as found:
        yield found


@pytest.mark.slow
def test_trials_at_once_are_those_of_one_process(
    local: Mapping[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings are drawn by number; all else is a matter of seeds and threads. One
    trial's process is killed as soon as it has told of a probe, and started again."""
    killed: list[int] = []
    hear = Scheduler.on_trial_result

    def heard(self: Scheduler, controller: Any, trial: Any, result: Any) -> str:
        told = hear(self, controller, trial, result)
        if not killed:
            killed.append(int(result["pid"]))
            os.kill(killed[0], signal.SIGKILL)
        return told

    monkeypatch.setattr(Scheduler, "on_trial_result", heard)
    here = search(small_sweep(tmp_path / "here", *PLAIN), lambda: DEBUG, Lines())
    sweep = small_sweep(tmp_path / "ray", *PLAIN, *ON_RAY)
    assert at_once(sweep.settings, local) >= 2
    there = search(sweep, lambda: local, Lines())
    assert killed
    assert came_of(there) == came_of(here)
    assert [r.state for r in there] == ["complete"] * 2


@pytest.mark.slow
def test_trials_one_after_another_are_ended_as_in_one_process(
    local: Mapping[str, Any], tmp_path: Path
) -> None:
    """With the sampler that learns, and both rules."""
    here = search(small_sweep(tmp_path / "here"), lambda: DEBUG, Lines())
    alone = small_sweep(tmp_path / "ray", "sweep.at_once=1", *ON_RAY)
    there = search(alone, lambda: local, Lines())
    assert came_of(there) == came_of(here)
    assert {r.state for r in there} == {"complete", "pruned"}


@pytest.mark.parametrize(
    ("cluster", "settings", "said"),
    [
        ({"cpus": 2, "workers": 3}, {"at_once": None}, "lower cluster.workers"),
        ({"cpus": 4, "workers": 2}, {"at_once": 3}, "lower sweep.at_once"),
        ({"gpu": True, "gpus": 1, "workers": 2}, {"at_once": None}, "1 GPUs"),
    ],
)
def test_no_room_is_told_of(
    cluster: Mapping[str, Any], settings: Mapping[str, Any], said: str
) -> None:
    usual = {
        "kind": "auto",
        "cpus": 8,
        "gpus": 0,
        "gpu": False,
        "cpus_per_worker": 1,
        "workers": 1,
    }
    with pytest.raises(UserError) as caught:
        at_once(settings, {**usual, **cluster})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_shares_of_gpus_make_room_for_more_trials() -> None:
    usual = {
        "kind": "auto",
        "cpus": 8,
        "gpus": 2,
        "gpu": True,
        "cpus_per_worker": 1,
        "workers": 1,
    }
    settings = {"at_once": None}
    assert at_once(settings, usual) == 2
    assert at_once(settings, {**usual, "gpus_per_worker": 0.5}) == 4
    assert at_once({"at_once": 3}, {**usual, "gpus_per_worker": 0.5}) == 3
    # No worker has two thirds of its share on another GPU.
    assert at_once(settings, {**usual, "gpus_per_worker": 0.6}) == 2
    with pytest.raises(UserError, match=r"lower cluster\.workers"):
        at_once(settings, {**usual, "gpus_per_worker": 0.6, "workers": 3})
