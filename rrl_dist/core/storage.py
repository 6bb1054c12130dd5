"""Files that are complete or absent, never half written."""

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rrl_dist.core.errors import UserError

_ROOM = "make room there, and the same command goes on"
_RIGHT = "give the right to write there, or choose another folder"
_PLACE = "a file has the name of a folder here; choose another folder"
_DISK = "see to that disk, and the same command goes on"
# What a disk answers that takes no more.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# What to do about the errors that are not the program's.
_MEND = {
    **dict.fromkeys(FULL, _ROOM),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), _RIGHT),
    **dict.fromkeys((errno.ENOTDIR, errno.EISDIR, errno.EEXIST), _PLACE),
    **dict.fromkeys((errno.EIO, errno.ESTALE), _DISK),
    errno.ENAMETOOLONG: "choose a shorter name",
}
# What file systems without links answer, and those that give none to this user.
_NO_LINKS = {
    *(errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS),
    *(errno.EXDEV, errno.EMLINK),
}


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """A disk that does not take what the block writes is told of in one line.

    Raises:
        UserError: naming `path` and what to do.
    """
    try:
        yield
    except OSError as error:
        mend = _MEND.get(error.errno or 0)
        if mend is None or not _concerns(error, path):
            raise
        reason = os.strerror(error.errno or 0).lower()
        raise UserError(f"{path} cannot be written ({reason}); {mend}") from error


def _concerns(error: OSError, path: Path) -> bool:
    """Whether an error is of this file or of its folders, not of one read meanwhile."""
    if not isinstance(error.filename, str):
        return True
    named = Path(error.filename)
    return path.is_relative_to(named) or named.is_relative_to(path.parent)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block succeeds.

    The content is on the disk before the name appears, and the folder's entry is too
    (so a power cut leaves the old file or the new one). On an error nothing is left.

    Raises:
        UserError: the disk is full, or must not be written.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.parent / f".{path.name}.{uuid.uuid4().hex}"
        try:
            temporary.touch(exist_ok=False)
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a whole file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Sorted keys and a fixed layout: equal values are equal bytes. NaN is refused."""
    text = json.dumps(value, indent=2, sort_keys=True, allow_nan=False)
    write_bytes(path, (text + "\n").encode())


def link(file: Path, name: Path) -> None:
    """Give a file a second name, which takes no room; a copy where there are no links.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: the disk cannot be written.
    """
    with writing(name):
        try:
            os.link(file, name)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            with atomic_path(name) as temporary:
                shutil.copyfile(file, temporary)


def read_json(path: Path) -> Any:
    """The value of a JSON file."""
    return json.loads(path.read_text())


def file_hash(path: Path) -> str:
    """sha256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_part(path: str, start: int, size: int) -> bytes:
    """From a place in a file on; shorter than `size` where the file ends."""
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(size)


def value_hash(value: Any) -> str:
    """sha256 of a JSON value that does not depend on the order of its keys."""
    text = json.dumps(value, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
