"""A file's hash is known without reading it only while it is that file, as it was."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from rrl_dist.data import seal
from rrl_dist.data.seal import current_hash, seal_path, sealed_hash


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.beton"
    path.write_bytes(b"first")
    assert seal.seal(path) == sha256(path)
    return path


def test_a_file_that_was_left_alone_is_not_read(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seal, "file_hash", pytest.fail)
    assert current_hash(file) == sealed_hash(file) == sha256(file)


def test_whatever_is_done_to_a_file_its_hash_is_its_own(file: Path) -> None:
    before, kept = file.stat(), sealed_hash(file)

    def overwritten() -> None:
        file.write_bytes(b"other")  # as long as before

    def overwritten_with_its_times() -> None:
        file.write_bytes(b"third")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    def replaced() -> None:
        other = file.with_name("b")
        other.write_bytes(b"fresh")
        os.replace(other, file)

    for change in (overwritten, overwritten_with_its_times, replaced):
        change()
        assert current_hash(file) == sha256(file) != kept
        assert sealed_hash(file) == kept, "what it should be stays known"


def test_a_copy_is_read_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = file.parent / "there" / file.name
    copy.parent.mkdir()
    shutil.copy2(file, copy)
    shutil.copy2(seal_path(file), seal_path(copy))
    while seal.time.time_ns() - copy.stat().st_ctime_ns < 3e7:
        pass
    read: list[Path] = []
    real = seal.file_hash

    def counted(path: Path) -> str:
        read.append(path)
        return real(path)

    monkeypatch.setattr(seal, "file_hash", counted)
    assert [current_hash(copy) for _ in range(3)] == [sha256(file)] * 3
    assert read == [copy]


@pytest.mark.parametrize("content", ["", "{}", "[]", "\udcff", '{"sha256": "x"}'])
def test_a_seal_that_tells_nothing_is_passed_over(file: Path, content: str) -> None:
    seal_path(file).write_bytes(content.encode(errors="surrogateescape"))
    assert current_hash(file) == sha256(file)
    seal_path(file).unlink()
    assert sealed_hash(file) is None
    assert current_hash(file) == sha256(file)
