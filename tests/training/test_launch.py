"""The same stage in this process and in Ray Train's workers."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from rrl_dist.core.errors import UserError
from rrl_dist.training.cluster import session, worker_variables
from rrl_dist.training.journal import TrainingDivergedError
from rrl_dist.training.launch import launch
from tests.gloo import run_workers
from tests.training.stages import differences, pretraining, train_workers

# Ray warns of what it does itself when its trainer is made.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

DEBUG = {"kind": "debug", "workers": 1, "threads": 1, "gpu": "auto"}
LOCAL = {
    "kind": "local",
    "workers": 2,
    "threads": 1,
    "gpu": "auto",
    "max_failures": 1,
    "wait": 60,
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Mapping[str, Any]]:
    with session(LOCAL) as found:
        yield found


def test_debug_is_this_process_and_nothing_else(teacher: Path, tmp_path: Path) -> None:
    with session(DEBUG) as cluster:
        launch(pretraining("simclr"), tmp_path, cluster, print)
    assert differences(teacher, tmp_path) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"workers": 2}, "cluster=debug has one worker, not 2"),
        ({"workers": 0}, r"cluster\.workers=0; set at least 1"),
        ({"kind": "local", "workers": -1}, r"cluster\.workers=-1"),
    ],
)
def test_impossible_clusters_are_refused(
    change: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message), session({**DEBUG, **change}):
        pass


def test_workers_that_there_is_no_room_for_are_refused(tmp_path: Path) -> None:
    """An evaluation begins with fewer; a step needs all of them."""
    found = {"kind": "auto", "threads": 1, "gpu": False, "cpus_per_worker": 1}
    short = {**found, "workers": 3, "cpus": 2, "gpus": 0}
    with pytest.raises(UserError, match="=3 but the cluster has 2 CPUs; set"):
        launch(pretraining("simclr"), tmp_path, short, print)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_cluster_without_gpus_is_found_out(cluster: Mapping[str, Any]) -> None:
    assert cluster["cpus_per_worker"] == 1
    assert cluster["workers"] == 2
    assert cluster["gpu"] in (True, False)


@pytest.mark.slow
def test_one_worker_of_ray_trains_as_this_process_does(
    cluster: Mapping[str, Any], teacher: Path, tmp_path: Path
) -> None:
    launch(pretraining("simclr"), tmp_path, {**cluster, "workers": 1}, print)
    assert differences(teacher, tmp_path) == []


class Misled:
    """Variables of workers that first name an interface which is not there."""

    def __init__(self) -> None:
        self.groups = 0

    def __call__(self, *, threads: int, gpu: bool) -> dict[str, str]:
        self.groups += 1
        found = worker_variables(threads=threads, gpu=gpu)
        return found if self.groups > 1 else {**found, "GLOO_SOCKET_IFNAME": "none0"}


@pytest.mark.slow
def test_two_workers_of_ray_train_as_two_processes_do(
    cluster: Mapping[str, Any],
    teacher: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where a first group does not come together."""
    stage = pretraining("deacl", "model.sync_bn=false", teacher=teacher)
    misled, lines = Misled(), list[str]()
    monkeypatch.setattr("rrl_dist.training.group.worker_variables", misled)
    launch(stage, tmp_path / "ray", cluster, lines.append)
    assert misled.groups == 2
    (line,) = lines
    assert "workers were lost (" in line
    assert "none0" in line
    assert line.endswith("; going on from step 0")
    run_workers(2, train_workers, stage, tmp_path / "gloo", False)
    assert differences(tmp_path / "ray", tmp_path / "gloo") == []


@pytest.mark.slow
def test_what_another_attempt_would_not_mend_is_told_at_once(
    cluster: Mapping[str, Any], tmp_path: Path
) -> None:
    one = {**cluster, "workers": 1}
    wild = pretraining("simclr", "arms.simclr.optim.lr=1e12")
    with pytest.raises(TrainingDivergedError, match=r"step \d+: \w+ is"):
        launch(wild, tmp_path, cluster, print)
    with pytest.raises(UserError, match="DeACL distils a teacher"):
        launch(pretraining("deacl"), tmp_path / "other", one, print)
    # What an attempt failed of does not stop the next one.
    launch(pretraining("simclr", "seed=1"), tmp_path / "other", one, print)
    assert (tmp_path / "other" / "model.json").is_file()
