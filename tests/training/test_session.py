"""A Ray session that does not start, or has not the nodes that a run began on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import write_json
from rrl_dist.training.cluster import check_places, places, session
from rrl_dist.training.launch import launch, on_gpus
from tests.training.stages import pretraining
from tests.training.test_attempts import committed

AUTO = {"kind": "auto", "workers": 2, "threads": 1, "gpu": "auto", "wait": 0}
SLOW = "The current node timed out during startup. This could happen because"


class Ray:
    """What stands in for `ray.init` and what is asked of it then.

    Args:
        errors: raised one after the other before it starts.
        resources: of the cluster.
    """

    def __init__(self, *errors: Exception, **resources: float) -> None:
        self.errors, self.resources, self.tries = [*errors], resources, 0

    def init(self, **options: Any) -> None:
        self.tries += 1
        if self.errors:
            raise self.errors.pop(0)

    def stand_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("ray", reason="Ray is not installed")
        monkeypatch.setattr("rrl_dist.training.cluster.check_head", lambda: None)
        monkeypatch.setattr("ray.init", self.init)
        monkeypatch.setattr("ray.shutdown", lambda: None)
        monkeypatch.setattr("ray.cluster_resources", lambda: self.resources)


def found(monkeypatch: pytest.MonkeyPatch, ray: Ray, **changes: Any) -> Any:
    ray.stand_in(monkeypatch)
    with session({**AUTO, **changes}) as cluster:
        return cluster


def test_ray_gets_a_second_chance_to_start(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = Ray(Exception(SLOW), CPU=4.0)
    assert found(monkeypatch, ray)["cpus"] == 4
    assert ray.tries == 2


def test_a_ray_that_does_not_start_is_told_in_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray = Ray(Exception(f"{SLOW}\nmore"), RuntimeError(f"{SLOW}\nmore"))
    with pytest.raises(UserError) as refusal:
        found(monkeypatch, ray)
    line = str(refusal.value)
    assert "\n" not in line
    assert line.startswith(f"Ray did not start, twice ({SLOW}); ")
    assert ray.tries == 2


def test_where_there_is_no_cluster_nobody_tries_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ray = Ray(ConnectionError("no"))
    with pytest.raises(UserError, match="found no Ray cluster"):
        found(monkeypatch, ray)
    assert ray.tries == 1


def test_a_head_alone_is_no_mistake_until_workers_must_be_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A run that has begun waits for its nodes."""
    for changes, told in (({}, "no CPUs"), ({"gpu": True}, "no CPUs")):
        cluster = found(monkeypatch, Ray(), **changes)
        for asked in (places, check_places):
            with pytest.raises(UserError, match=told):
                asked(cluster)
    cluster = found(monkeypatch, Ray(CPU=4.0), gpu=True)
    for asked in (places, check_places):
        with pytest.raises(UserError, match="there is no GPU"):
            asked(cluster)


@pytest.mark.parametrize(
    ("asked", "before", "now", "then"),
    [
        ("auto", True, False, True),
        ("auto", False, True, False),
        ("auto", True, True, True),
        (False, True, False, False),
        (True, False, True, True),
    ],
)
def test_a_stage_goes_on_on_the_devices_that_it_began_on(
    asked: Any, before: bool, now: bool, then: bool, tmp_path: Path
) -> None:
    lines = list[str]()
    cluster = {"gpu": now, "asked_gpu": asked}
    write_json(tmp_path / "devices.json", {"gpu": before})
    # Before anything is saved they do not matter.
    assert on_gpus(cluster, tmp_path, pytest.fail) is now
    write_json(tmp_path / "checkpoints" / committed(4), {})
    assert on_gpus(cluster, tmp_path, lines.append) is then
    told = {True: "began on GPUs", False: "began on CPUs"}[before]
    assert [told in line for line in lines] == ([True] if then is not now else [])


def test_a_run_waits_for_the_gpus_that_it_began_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not go on on the CPUs that are left."""
    started: list[Mapping[str, Any]] = []
    monkeypatch.setattr("rrl_dist.training.launch.Attempts", Started(started))
    where = {"kind": "auto", "workers": 2, "cpus_per_worker": 1}
    gpus = {**where, "gpu": True, "asked_gpu": "auto", "cpus": 8, "gpus": 2}
    launch(pretraining("simclr"), tmp_path, gpus, print)
    write_json(tmp_path / "checkpoints" / committed(4), {})
    none = {**gpus, "gpu": False, "cpus": 0, "gpus": 0}
    launch(pretraining("simclr"), tmp_path, none, print)
    assert [cluster["gpu"] for cluster in started] == [True, True]


class Started:
    """In place of `Attempts`: notes the cluster, and is at its end at once."""

    def __init__(self, clusters: list[Mapping[str, Any]]) -> None:
        self.clusters = clusters

    def __call__(
        self, stage: Any, folder: Path, cluster: Mapping[str, Any], *rest: Any
    ) -> "Started":
        self.clusters.append(cluster)
        return self

    def one(self) -> bool:
        return True
