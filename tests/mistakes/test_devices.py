"""More workers than devices, a GPU where none is, and a driver too old for torch."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rrl_dist.core.errors import UserError
from rrl_dist.training.cluster import (
    check,
    check_places,
    places,
    session,
    worker_variables,
)
from rrl_dist.training.devices import uses_gpus
from tests.mistakes.commands import refused
from tests.mistakes.listing import told

DEMO = "experiment=demo"
NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
CORES = os.cpu_count() or 1

# What torch asks a driver before it believes it: a version, and how many devices.
STAND_IN = """
int cuDriverGetVersion(int *version) { *version = VERSION; return 0; }
int cuInit(unsigned flags) { return 0; }
int cuDeviceGetCount(int *count) { *count = DEVICES; return 0; }
"""


@NO_GPU
@pytest.mark.parametrize("kind", ["debug", "local"])
def test_a_gpu_where_none_is(
    kind: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ["run", DEMO, f"cluster={kind}", "cluster.gpu=true"]
    line = refused([*asked, f"storage={tmp_path}"], monkeypatch, capsys)
    told(f"a GPU where none is, cluster={kind}", f"rrl {' '.join(asked)}", line)
    assert not list(tmp_path.iterdir())


@NO_GPU
def test_far_more_workers_than_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    asked = ["run", DEMO, "cluster.workers=64"]
    line = refused([*asked, f"storage={tmp_path}"], monkeypatch, capsys)
    told("far more workers than cores", f"rrl {' '.join(asked)}", line)
    assert not list(tmp_path.iterdir())
    check({"kind": "local", "workers": 8, "threads": 1, "gpu": "auto"})


def test_more_workers_than_gpus() -> None:
    with pytest.raises(UserError) as refusal:
        uses_gpus({"gpu": "auto", "workers": 4}, 2)
    told(
        "more workers than GPUs",
        f"rrl run {DEMO} cluster.workers=4",
        f"rrl run: {refusal.value}",
    )
    assert uses_gpus({"gpu": "auto", "workers": 2}, 2)
    assert not uses_gpus({"gpu": "auto", "workers": 4}, 0)
    assert not uses_gpus({"gpu": False, "workers": 4}, 2)


def test_more_workers_to_train_than_there_is_room_for() -> None:
    """An evaluation begins with those that there is room for."""
    found = {"kind": "auto", "cpus_per_worker": 1, "gpu": False, "gpus": 0}
    short = {**found, "workers": 3, "cpus": 2}
    with pytest.raises(UserError) as refusal:
        check_places(short)
    told(
        "more workers to train than CPUs",
        f"rrl run {DEMO} cluster=auto cluster.workers=3",
        f"rrl run: {refusal.value}",
    )
    assert places(short) == 2
    assert places({**short, "cpus": 8}) == 3
    assert places({**short, "cpus": 8, "gpu": True, "gpus": 1}) == 1
    check_places({**short, "cpus": 3})
    with pytest.raises(UserError, match="the number of GPUs is 1"):
        check_places({**short, "cpus": 8, "gpu": True, "gpus": 1})


def test_fewer_workers_at_most_than_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["run", DEMO, "cluster=auto", "cluster.workers=3", "cluster.max_workers=2"]
    line = refused([*asked, f"storage={tmp_path}"], monkeypatch, capsys)
    told("fewer workers at most than at the start", f"rrl {' '.join(asked)}", line)
    assert not list(tmp_path.iterdir())
    check({"kind": "auto", "workers": 3, "max_workers": 3, "threads": 1, "gpu": "auto"})


def test_a_gpu_that_may_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["run", DEMO, "cluster.gpu=maybe"]
    line = refused(asked, monkeypatch, capsys)
    told("cluster.gpu of another kind", f"rrl {' '.join(asked)}", line)


@pytest.mark.gpu
def test_debug_leaves_a_gpu_alone_that_it_is_not_to_use() -> None:
    config = {"kind": "debug", "workers": 1, "threads": 1}
    with session({**config, "gpu": False}) as found:
        assert found["gpu"] is False
    with session({**config, "gpu": "auto"}) as found:
        assert found["gpu"] is True


def test_a_worker_without_a_gpu_sees_none() -> None:
    hidden = {"CUDA_VISIBLE_DEVICES": ""}
    assert worker_variables(threads=1, gpu=False).items() >= hidden.items()
    assert "CUDA_VISIBLE_DEVICES" not in worker_variables(threads=1, gpu=True)


def run_with_driver(
    folder: Path, *arguments: str, version: int = 12040, devices: int = 1
) -> "subprocess.CompletedProcess[str]":
    """`rrl ARGUMENTS` in a process whose torch finds this driver."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc to compile a stand-in for the driver")
    source = folder / "driver.c"
    source.write_text(STAND_IN)
    numbers = [f"-DVERSION={version}", f"-DDEVICES={devices}"]
    library = ["-shared", "-fPIC", "-o", folder / "libcuda.so.1", source]
    subprocess.run([compiler, *numbers, *library], check=True)
    path = f"{folder}:{os.environ.get('LD_LIBRARY_PATH', '')}"
    return subprocess.run(
        [sys.executable, "-m", "rrl_dist.cli.main", *arguments],
        env={**os.environ, "LD_LIBRARY_PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.slow
@NO_GPU
@pytest.mark.skipif(torch.version.cuda is None, reason="torch is built without CUDA")
@pytest.mark.parametrize("gpu", ["auto", "true"])
def test_a_driver_too_old_is_never_passed_over(gpu: str, tmp_path: Path) -> None:
    asked = ["run", DEMO, f"cluster.gpu={gpu}"]
    runs = tmp_path / "runs"
    found = run_with_driver(tmp_path, *asked, f"storage={runs}")
    assert found.returncode == 2, found.stdout + found.stderr
    assert found.stdout == ""
    assert not runs.exists()
    line = found.stderr.replace(torch.__version__, "VERSION")
    line = line.replace(f"CUDA {torch.version.cuda}", "CUDA 13.0")
    told(
        f"a driver too old for torch, cluster.gpu={gpu}", f"rrl {' '.join(asked)}", line
    )


@pytest.mark.slow
@NO_GPU
@pytest.mark.skipif(torch.version.cuda is None, reason="torch is built without CUDA")
def test_a_gpu_that_torch_cannot_use_is_told_of(tmp_path: Path) -> None:
    asked = ["run", DEMO, f"storage={tmp_path / 'runs'}"]
    found = run_with_driver(tmp_path, *asked, version=99000)
    assert found.returncode == 2, found.stdout + found.stderr
    (line,) = found.stderr.splitlines()
    assert "a GPU is here, but torch cannot use it" in line


@pytest.mark.slow
@NO_GPU
def test_an_old_driver_without_a_device_is_no_mistake(tmp_path: Path) -> None:
    asked = ["run", DEMO, "data.classes=[seven]", f"storage={tmp_path / 'runs'}"]
    found = run_with_driver(tmp_path, *asked, devices=0)
    assert "no class 'seven'" in found.stderr


@pytest.mark.slow
@NO_GPU
def test_without_a_gpu_an_old_driver_does_not_matter(tmp_path: Path) -> None:
    asked = ["run", DEMO, "data.classes=[seven]", f"storage={tmp_path / 'runs'}"]
    found = run_with_driver(tmp_path, *asked, "cluster.gpu=false")
    assert "no class 'seven'" in found.stderr
    (line,) = found.stderr.splitlines()
    assert line.startswith("rrl run: ")
