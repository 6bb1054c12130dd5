"""What each check finds where something is wrong, and where nothing is."""

import os
import resource
import stat
import sys
import time
from pathlib import Path

import pytest
import torch

from rrl_dist.core.storage import write_json
from rrl_dist.doctor import (
    check_clocks,
    check_data,
    check_deepspeed,
    check_devices,
    check_disk,
    check_ffcv,
    check_limits,
    check_memory,
    check_tokens,
    check_versions,
    looking,
)
from rrl_dist.doctor.finding import FAIL, OK, WARN
from rrl_dist.training import devices
from tests.doctor.asking import asked, only


def test_versions_that_are_equal_and_that_are_not() -> None:
    own = check_versions.versions()
    assert torch.__version__.startswith(own["torch"])
    assert list(check_versions.compare(own, {"a": own, "b": dict(own)})) == []
    code = next(name for name in own if "code" in name)
    other = {**own, "torch": "1.0", code: "0" * 12}
    ((node, finding),) = check_versions.compare(own, {"a": own, "b": other})
    assert (node, finding.state) == ("b", FAIL)
    assert f"torch 1.0 ({own['torch']})" in finding.found
    assert f"{code} {'0' * 12} ({own[code]})" in finding.found
    assert "docker/install.sh" in finding.mend


def test_the_hash_is_of_what_the_sources_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_versions, "_SOURCES", tmp_path)
    file = tmp_path / "part" / "code.py"
    file.parent.mkdir()
    file.write_text("a = 1\n")
    before = check_versions.versions()
    assert check_versions.versions() == before
    file.write_text("a = 2\n")
    assert check_versions.versions() != before


def test_versions_other_than_those_tested_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = tmp_path / "rrl_dist"
    sources.mkdir()
    monkeypatch.setattr(check_versions, "_SOURCES", sources)
    assert only(check_versions.look(asked(tmp_path))).state == OK
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker/constraints.txt").write_text("# a set\nray==0.1\nother==2\n")
    found = only(check_versions.look(asked(tmp_path)))
    assert found.state == WARN
    assert "(0.1)" in found.found
    assert "other" not in found.found


def test_more_gpus_for_ray_than_for_torch(tmp_path: Path) -> None:
    found = only(check_devices.look(asked(tmp_path, gpus=99)))
    assert found.state == WARN
    assert "Ray counts 99 GPUs" in found.found
    assert only(check_devices.look(asked(tmp_path))).state == OK


@pytest.mark.parametrize(
    ("driver", "mend"),
    [
        (
            (12, 2),
            "install torch and torchvision from https://download.pytorch.org/whl/",
        ),
        ((11, 8), "update the driver, or set cluster.gpu=false"),
    ],
)
def test_a_driver_too_old_for_this_torch(
    driver: tuple[int, int],
    mend: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(devices, "_driver", lambda: driver)
    monkeypatch.setattr(devices, "_visible_to_torch", lambda: False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    looks = {"devices": check_devices}
    monkeypatch.setattr(looking, "checks", lambda: looks)
    found = only(looking.look(asked(tmp_path))["devices"])
    assert found.state == FAIL
    assert f"CUDA {driver[0]}.{driver[1]}, and torch" in found.found
    assert found.mend.startswith("update the driver")
    assert mend in found.mend
    assert ("whl/cu126" in found.mend) == (driver[0] == 12)


def test_gpus_of_another_kind_than_most() -> None:
    big, small = {"gpus": {"A100": 8}}, {"gpus": {"T4": 1}}
    none: dict[str, dict[str, int]] = {"gpus": {}}
    nodes = {"a": big, "b": small, "c": big, "head": none}
    ((node, finding),) = check_devices.compare(none, nodes)
    assert (node, finding.state) == ("b", WARN)
    assert finding.found == "T4, where most nodes have A100"
    assert list(check_devices.compare(none, {"a": big, "head": none})) == []


@pytest.mark.parametrize(
    ("total", "free", "store", "state", "said"),
    [
        (64e6, 64e6, None, FAIL, "64 MB"),
        (8e9, 1e6, None, FAIL, "full"),
        (8e9, 8e9, 9e9, WARN, "slow"),
        (8e9, 8e9, 2e9, OK, "1 GB or more"),
    ],
)
def test_shared_memory(
    total: float,
    free: float,
    store: float | None,
    state: str,
    said: str,
    tmp_path: Path,
) -> None:
    told = asked(tmp_path, shared_memory_gb=1.0, object_store=store)
    found = check_memory.judged(int(total), int(free), told)
    assert found.state == state
    assert said in found.found


def test_a_disk_without_room_is_told_of_once(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    told = asked(tmp_path, disk_gb=1e9)
    found = check_disk.look(told).findings
    full = [f for f in found if f"storage in {tmp_path / 'runs'}" in f.found]
    assert len(full) == 1
    assert full[0].state == FAIL
    assert f"betons in {tmp_path / 'betons'}" in full[0].found
    assert only(check_disk.look(asked(tmp_path))).state == OK
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_disk_that_takes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    found = check_disk.look(asked(tmp_path)).findings
    assert {finding.state for finding in found} == {FAIL}
    assert found[0].found.startswith(f"storage: {tmp_path} cannot be written (no space")
    assert "make room" in found[0].mend


def test_ray_writes_nothing_on_a_disk_that_is_nearly_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_disk, "_RAYS_LIMIT", 0.0)
    assert only(check_disk.look(asked(tmp_path))).state == OK
    found = check_disk.look(asked(tmp_path, ray_folder=str(tmp_path / "ray"))).findings
    assert any("Ray writes nothing there" in finding.found for finding in found)


def package(folder: Path, name: str, text: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(text)


def test_ffcv_without_its_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, "ffcv", "raise ImportError('libopencv_core.so.406: not there')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [n for n in sys.modules if n.partition(".")[0] == "ffcv"]:
        monkeypatch.delitem(sys.modules, name)
    seen = check_ffcv.look(asked(tmp_path))
    assert only(seen).state == FAIL
    assert "libopencv_core.so.406: not there" in only(seen).found
    assert "libturbojpeg0-dev" in only(seen).mend
    assert seen.facts == {"usable": False}


def test_a_node_without_ffcv_where_the_driver_has_it() -> None:
    nodes = {"a": {"usable": True}, "b": {"usable": False}}
    ((node, finding),) = check_ffcv.compare({"usable": True}, nodes)
    assert (node, finding.state) == ("b", FAIL)
    assert list(check_ffcv.compare({"usable": False}, nodes)) == []


def test_deepspeed_that_cannot_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, "deepspeed", "raise ImportError('no compiler')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.delitem(sys.modules, "deepspeed", raising=False)
    found = only(check_deepspeed.look(asked(tmp_path)))
    assert found.state == FAIL
    assert "ImportError: no compiler" in found.found
    (tmp_path / "deepspeed/__init__.py").write_text("")
    assert only(check_deepspeed.look(asked(tmp_path))).state == OK


def test_data_that_is_the_same_and_that_is_not(tmp_path: Path) -> None:
    (tmp_path / "betons").mkdir()
    (tmp_path / "betons/digits-train-raw-0.beton").write_bytes(b"one")
    seen = check_data.look(asked(tmp_path))
    assert only(seen).state == OK
    own = seen.facts
    splits = {**own["splits"], "train": "another"}
    (tmp_path / "betons/digits-train-raw-0.beton").write_bytes(b"two")
    rewritten = check_data.look(asked(tmp_path)).facts
    nodes = {
        "same": own,
        "images": {**own, "splits": splits},
        "bare": {**own, "betons": {}},
        "files": rewritten,
    }
    found = dict(check_data.compare(own, nodes))
    assert found.keys() == {"images", "bare", "files"}
    assert {finding.state for finding in found.values()} == {FAIL}
    assert "digits (train) is not what the driver reads" in found["images"].found
    assert "no digits-train-raw-0.beton" in found["bare"].found
    assert "not the driver's file" in found["files"].found
    own_disks = {**own, "shared": False}
    assert list(check_data.compare(own_disks, {"bare": {**own, "betons": {}}})) == []


@pytest.mark.parametrize(
    ("mode", "content", "rights", "state", "said"),
    [
        ("token", "secret", 0o600, OK, "it is there"),
        ("TOKEN", "secret", 0o644, WARN, "can be read by others"),
        ("token", " \n", 0o600, FAIL, "is empty"),
        ("token", None, 0, FAIL, "cannot be read (No such file"),
        ("disabled", "secret", 0o600, WARN, "can run anything"),
    ],
)
def test_tokens(
    mode: str,
    content: str | None,
    rights: int,
    state: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content)
        file.chmod(rights)
        assert stat.S_IMODE(file.stat().st_mode) == rights
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    found = only(check_tokens.look(asked(tmp_path, node="id")))
    assert (found.state, said in found.found) == (state, True)
    told = f"{found.found} {found.mend}".replace(str(file), "")
    assert "secret" not in told


def test_without_a_cluster_no_token_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    assert only(check_tokens.look(asked(tmp_path))).state == OK
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    assert only(check_tokens.look(asked(tmp_path))).state == OK


@pytest.mark.parametrize(("files", "state"), [(1024, WARN), (65536, OK)])
def test_few_open_files(
    files: int, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (files, files))
    assert only(check_limits.look(asked(tmp_path))).state == state


@pytest.mark.parametrize(
    ("shift", "state", "said"),
    [
        (0.0, OK, "agree"),
        (-60.0, WARN, "60 s behind"),
        (60.0, WARN, "60 s ahead of"),
        (3.0, OK, "agree"),
    ],
)
def test_clocks(shift: float, state: str, said: str) -> None:
    before = time.time()
    found = check_clocks.judged(before + 0.5 + shift, before, before + 1.0)
    assert found.state == state
    assert said in found.found.replace("59", "60")


def test_a_seal_is_not_taken_for_another_files(tmp_path: Path) -> None:
    (tmp_path / "betons").mkdir()
    file = tmp_path / "betons/digits-train-raw-0.beton"
    file.write_bytes(b"one")
    write_json(file.with_suffix(".json"), {"sha256": "no hash of it", "state": {}})
    (found,) = check_data.look(asked(tmp_path)).facts["betons"].values()
    assert found != "no hash of it"
