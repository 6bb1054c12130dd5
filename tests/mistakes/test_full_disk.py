"""A disk that is full, or must not be written: one line, and nothing is lost."""

import errno
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from rrl_dist.core.errors import UserError
from rrl_dist.core.run_directory import StageFolder
from rrl_dist.core.storage import atomic_path, read_json, write_json, writing
from rrl_dist.training.journal import Journal
from tests.cli.harness import TINY, rrl, start
from tests.mistakes.commands import refused
from tests.mistakes.listing import told

PRETRAIN = (
    "pretrain",
    "name=one",
    "data=digits",
    "model=small_cnn",
    "model.backbone.width=16",
    "views=digits",
    "train.batch_size=128",
    "train.max_steps=400",
    "train.checkpoint_every=2",
    "probe=none",
    "loader=memory",
)


def mounted(folder: Path, size: str) -> Iterator[Path]:
    """A disk of this size, in memory."""
    folder.mkdir()
    made = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(made, capture_output=True).returncode != 0:
        pytest.skip("no right to mount a small disk")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    yield from mounted(tmp_path / "disk", "24m")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    yield from mounted(tmp_path / "disk", "128k")


def fill(disk: Path, *, leave: int) -> None:
    """Take the room there is, but for `leave` bytes."""
    room = os.statvfs(disk)
    count = room.f_bavail * room.f_frsize - leave
    # Who writes meanwhile takes some of it.
    with suppress(OSError), (disk / "ballast").open("ab") as file:
        file.write(bytes(max(count, 0)))


def fill_and_read(disk: Path) -> None:
    fill(disk, leave=0)
    (disk / "nothing").read_bytes()


def refused_when(disk: Path, pattern: str, leave: int, *arguments: str) -> str:
    """Run `rrl ARGUMENTS` on a disk that is full from when a file matches `pattern`
    on; returns the last line that was said. Then there is room again."""
    process = start(disk, *arguments)
    while process.poll() is None:
        if any(disk.glob(pattern)):
            fill(disk, leave=leave)
        time.sleep(0.005)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 2, printed
    assert "Traceback" not in printed
    (disk / "ballast").unlink()
    assert not list(disk.rglob(".*.*[0-9a-f]")), "a half-written file was left"
    return shortened(printed.strip().splitlines()[-1])


def shortened(line: str) -> str:
    """Without what a run's numbers and hashes change."""
    line = re.sub(r"-[0-9a-f]{12}/", "-HASH/", line)
    part = r"step-\d+-[0-9a-f]{8}-part-\d+-of-\d+"
    return re.sub(rf"{part}|(?<=rows/)[^/]+/[^/]+\.parquet", "FILE", line)


@pytest.mark.slow
def test_a_run_goes_on_after_room_was_made(disk: Path, tmp_path: Path) -> None:
    shorter = ("~arms.deacl", "suite.curve=null")
    run = ("run", *TINY, *shorter, "cluster=debug", "loader=memory")
    middle = "runs/demo/stages/pretrain-simclr-*/checkpoints/*.json"
    # A line of metrics still fits, a checkpoint does not.
    line = refused_when(disk, middle, 16_000, *run)
    command = "rrl run experiment=demo"
    told("a full disk while a checkpoint is written", command, line, folder=disk)
    # The checkpoint before it is whole: the hash beside it says so.
    line = refused_when(disk, "runs/demo/stages/evaluate-*/rows/*/*.parquet", 0, *run)
    told("a full disk while rows are written", command, line, folder=disk)
    printed = rrl(disk, *run)
    assert "damaged" not in printed
    rrl(tmp_path, *run)
    results = [f / "runs/demo/results.json" for f in (disk, tmp_path)]
    assert read_json(results[0]) == read_json(results[1])


def test_a_disk_without_room_for_checkpoints(
    disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wide = "objective.projector.hidden=4096"
    command = [*PRETRAIN, "cluster=debug", wide, f"storage={disk}/runs"]
    line = refused(command, monkeypatch, capsys)
    line = re.sub(r"\d+\.\d MB", "N MB", line)
    case = "a disk without room for checkpoints"
    told(case, "rrl pretrain name=one", line, folder=disk)
    assert not list(disk.rglob("checkpoints"))


@pytest.mark.slow
def test_a_full_disk_under_ray_is_told_in_one_line_too(disk: Path) -> None:
    middle = "runs/one/stages/*/checkpoints/*.json"
    own = ("cluster=local", "cluster.max_failures=0")
    line = refused_when(disk, middle, 16_000, *PRETRAIN, *own)
    assert line.startswith("rrl pretrain: ")
    assert "make room there" in line


@pytest.mark.slow
def test_a_full_disk_while_images_are_written(
    disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ffcv", reason="FFCV is not installed")
    fill(disk, leave=2_000_000)
    asked = ["prepare", "data=digits"]
    line = refused([*asked, f"betons={disk}"], monkeypatch, capsys)
    line = re.sub(r"digits-pretrain[^/ ]*\.beton", "digits-pretrain.beton", line)
    told(
        "a full disk while images are written",
        "rrl prepare data=digits",
        line,
        folder=disk,
    )
    assert os.listdir(disk) == ["ballast"]


def test_what_was_there_stays_when_a_file_does_not_fit(tiny_disk: Path) -> None:
    path = tiny_disk / "file"
    path.write_bytes(b"old")
    with (
        pytest.raises(UserError, match="no space left on device"),
        atomic_path(path) as temporary,
    ):
        temporary.write_bytes(bytes(10**6))
    assert path.read_bytes() == b"old"
    assert os.listdir(tiny_disk) == ["file"]


def test_metrics_on_a_full_disk(tiny_disk: Path) -> None:
    journal = Journal(tiny_disk, writes=True, start=0)
    journal.write(1, {"loss": 1.0})
    fill(tiny_disk, leave=0)
    with pytest.raises(UserError, match=r"metrics\.jsonl cannot be written"):
        journal.write(2, {"loss": 1.0, "note": "x" * 10_000})
    journal.close()
    (tiny_disk / "ballast").unlink()
    # A line that was cut short is dropped when the run goes on.
    Journal(tiny_disk, writes=True, start=10).close()
    lines = (tiny_disk / "metrics.jsonl").read_text().splitlines()
    assert lines[0] == '{"step": 1, "loss": 1.0}'
    assert all(line.endswith("}") for line in lines)


def test_the_clock_of_a_stage_does_not_hide_why_it_ended(tiny_disk: Path) -> None:
    stage = StageFolder.of(tiny_disk, "probe", {})
    with pytest.raises(FileNotFoundError), stage.attempt():
        fill_and_read(tiny_disk)
    (tiny_disk / "ballast").unlink()
    with pytest.raises(UserError, match="no space left"), stage.attempt():
        fill(tiny_disk, leave=0)


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "make room there"),
        (errno.EDQUOT, "make room there"),
        (errno.EFBIG, "make room there"),
        (errno.EROFS, "the right to write"),
        (errno.EACCES, "the right to write"),
        (errno.EPERM, "the right to write"),
        (errno.ENAMETOOLONG, "a shorter name"),
        (errno.EIO, "see to that disk"),
    ],
)
def test_what_a_disk_may_answer(number: int, advice: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    with pytest.raises(UserError, match=advice) as refusal, writing(path):
        raise OSError(number, os.strerror(number))
    assert str(path) in str(refusal.value)


def test_an_error_of_another_file_is_not_blamed_on_the_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "file"):
        (tmp_path / "other").read_bytes()
    missing = PermissionError(errno.EACCES, "denied", "/elsewhere/image.jpg")
    with pytest.raises(PermissionError), writing(tmp_path / "file"):
        raise missing


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(UserError) as refusal:
        write_json(tmp_path / "runs" / "demo" / "results.json", {})
    assert "a file has the name of a folder" in str(refusal.value)
