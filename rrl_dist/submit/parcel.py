"""What a job is sent of the folder it was submitted from: code, and no data."""

import os
import subprocess
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from rrl_dist.core.errors import UserError

MB = 1_000_000
_LARGEST = 3  # named where there is too much
# Of each file, so that the same files make the same parcel, which is sent once.
_MOMENT = (2000, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Parcel:
    """Files of a folder.

    Attributes:
        root: the folder.
        sizes: in bytes, by path relative to it, in the order of their names.
    """

    root: Path
    sizes: dict[str, int]

    @property
    def size(self) -> int:
        """In bytes, before compression."""
        return sum(self.sizes.values())

    def write(self, path: Path) -> int:
        """As a zip file; returns its size in bytes. Equal files make an equal one."""
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as parcel:
            for name in self.sizes:
                entry = zipfile.ZipInfo(name, _MOMENT)
                entry.compress_type = zipfile.ZIP_DEFLATED
                mode = (self.root / name).stat().st_mode
                entry.external_attr = (mode & 0o777) << 16
                parcel.writestr(entry, (self.root / name).read_bytes())
        return path.stat().st_size


def collect(root: Path, leave_out: Sequence[str], limit: float) -> Parcel:
    """The files that a job needs.

    What git ignores does not belong to them, where the folder is in a git repository.

    Args:
        root: the folder.
        leave_out: patterns of files and folders: of names at any depth, or with a
            slash in front, from the folder on.
        limit: MB, before compression.

    Raises:
        UserError: there is more, or nothing.
    """
    names = _known_to_git(root)
    if names is None:
        names = list(_walked(root, leave_out, ""))
    kept = sorted(name for name in set(names) if not _left_out(name, leave_out))
    sizes = {n: (root / n).stat().st_size for n in kept if (root / n).is_file()}
    if not sizes:
        raise UserError(f"{root} has nothing to send; start where the code is")
    parcel = Parcel(root, sizes)
    if parcel.size > limit * MB:
        raise UserError(
            f"{root} has {parcel.size / MB:,.0f} MB to send, more than upload.limit="
            f"{limit:g} ({_largest(sizes)}); add what no job needs to "
            "upload.leave_out, or move it elsewhere"
        )
    return parcel


def _known_to_git(root: Path) -> list[str] | None:
    """None where git, or a repository, is missing."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        found = subprocess.run(command, cwd=root, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return [os.fsdecode(name) for name in found.stdout.split(b"\0") if name]


def _walked(root: Path, leave_out: Sequence[str], before: str) -> Iterator[str]:
    with os.scandir(root / before) as entries:
        for entry in entries:
            name = before + entry.name
            if _left_out(name, leave_out):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walked(root, leave_out, f"{name}/")
            else:
                yield name


def _left_out(name: str, leave_out: Sequence[str]) -> bool:
    """Whether a pattern holds for a path or for a folder on its way."""
    parts = name.split("/")
    for pattern in leave_out:
        if pattern.startswith("/"):
            depth = pattern.count("/")
            if fnmatchcase("/" + "/".join(parts[:depth]), pattern):
                return True
        elif any(fnmatchcase(part, pattern) for part in parts):
            return True
    return False


def _largest(sizes: dict[str, int]) -> str:
    """Folders and files at the top, the largest first."""
    tops: dict[str, int] = {}
    for name, size in sizes.items():
        top, inside, _ = name.partition("/")
        tops[top + inside] = tops.get(top + inside, 0) + size
    first = sorted(tops.items(), key=lambda item: -item[1])[:_LARGEST]
    return ", ".join(f"{name} {size / MB:,.1f}" for name, size in first)
