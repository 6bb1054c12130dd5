"""What a job is sent of the folder it was submitted from: code, and no data."""

import ntpath
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rrl_dist.core.errors import UserError
from rrl_dist.submit.listing import check_folder, listed

MB = 1_000_000
_NAMED = 3  # where there are more
_PACKAGE = "rrl_dist/__init__.py"
# Of each file, so that the same files make the same parcel, which is sent once.
_MOMENT = (2000, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Parcel:
    """Files of a folder.

    Attributes:
        root: the folder.
        sizes: in bytes, by path relative to it, in the order of their names. A link to
            one of these files is another of the same content.
        unsent: paths that one might expect to be sent, by what they are.
    """

    root: Path
    sizes: dict[str, int]
    unsent: Mapping[str, Sequence[str]]

    @property
    def size(self) -> int:
        """In bytes, before compression."""
        return sum(self.sizes.values())

    def remarks(self) -> list[str]:
        """Lines on what is not as one might expect."""
        lines = []
        if self.unsent:
            kinds = (f"{kind} ({_some(of)})" for kind, of in self.unsent.items())
            lines.append(f"not sent: {', '.join(kinds)}")
        if _PACKAGE not in self.sizes:
            lines.append(
                f"{self.root} has no rrl_dist package to send: the cluster's own runs"
            )
        return lines

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
        UserError: there is more, or nothing; the folder is one of many things; git
            cannot tell what it ignores; a name cannot be sent, or a file not be read.
    """
    check_folder(root)
    sent, unsent = _sorted_out(root, listed(root, leave_out))
    if not sent:
        raise UserError(f"{root} has nothing to send; start where the code is")
    _check_names(sent)
    _check_readable(root, sent)
    sizes = {name: (root / name).stat().st_size for name in sent}
    parcel = Parcel(root, sizes, unsent)
    if parcel.size > limit * MB:
        raise UserError(
            f"{root} has {parcel.size / MB:,.0f} MB to send, more than upload.limit="
            f"{limit:g} ({_largest(sizes)}); add what no job needs to "
            "upload.leave_out, or move it elsewhere"
        )
    return parcel


def _sorted_out(
    root: Path, names: Sequence[str]
) -> tuple[list[str], dict[str, list[str]]]:
    """Names of files to send, and others by what they are."""
    real = root.resolve()
    own = {name for name in names if _resolved(real / name) == real / name}
    sent: list[str] = []
    unsent: dict[str, list[str]] = {}
    for name in names:
        if (kind := _hindrance(real, name, own)) is None:
            sent.append(name)
        elif kind:
            unsent.setdefault(kind, []).append(name)
    return sent, unsent


def _hindrance(root: Path, name: str, own: set[str]) -> str | None:
    """Why a name is not sent: empty where nobody misses it; None where it is sent.

    Args:
        root: the folder, without links on its way.
        name: relative to it.
        own: names that do not lead elsewhere.
    """
    path, is_own = root / name, name in own
    target = _resolved(path)
    if not path.exists():
        # git still lists files that were removed.
        return "broken links" if path.is_symlink() else ""
    if not target.is_relative_to(root):
        return "links out of the folder"
    if path.is_dir():
        return "repositories inside of it" if is_own else "links to folders"
    if not path.is_file():
        return "neither files nor folders"
    if not is_own and str(target.relative_to(root)) not in own:
        return "links to what is not sent"
    if "\\" in name or ntpath.splitdrive(name)[0]:
        return "names that Ray does not unpack"
    return None


def _resolved(path: Path) -> Path:
    """Without links, as far as they lead: unlike `Path.resolve`, of a loop too."""
    return Path(os.path.realpath(path))


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise UserError(
                f"the name of {_plain(name)} is not UTF-8; rename the file, or add "
                "it to upload.leave_out, with ? for what is not"
            ) from None


def _check_readable(root: Path, names: Sequence[str]) -> None:
    effective = os.access in os.supports_effective_ids
    for name in names:
        if not os.access(root / name, os.R_OK, effective_ids=effective):
            raise UserError(
                f"you may not read {_plain(name)}; change its mode, or add it to "
                "upload.leave_out"
            )


def _plain(name: str) -> str:
    """On one line, whatever it holds."""
    return name if name.isprintable() else ascii(name)


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    told = ", ".join(map(_plain, names[:_NAMED]))
    return f"{told} and {more} more" if more > 0 else told


def _largest(sizes: dict[str, int]) -> str:
    """Folders and files at the top, the largest first."""
    tops: dict[str, int] = {}
    for name, size in sizes.items():
        top, inside, _ = name.partition("/")
        tops[top + inside] = tops.get(top + inside, 0) + size
    first = sorted(tops.items(), key=lambda item: -item[1])[:_NAMED]
    return ", ".join(f"{_plain(name)} {size / MB:,.1f}" for name, size in first)
