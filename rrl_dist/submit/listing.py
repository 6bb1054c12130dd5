"""The names of a folder's files, as git lists them, or as they lie there."""

import os
import re
import subprocess
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from rrl_dist.core.errors import UserError

# What git says where there is no repository, and not of one that is damaged.
_NO_REPOSITORY = "not a git repository (or any "
_SAFE = re.compile(r"git config --global --add safe\.directory \S.*")


def check_folder(root: Path) -> None:
    """Refuse what is no project's folder, before all of it is read.

    Raises:
        UserError: it is no folder, or the home folder, or has that inside.
    """
    if not root.is_dir():
        raise UserError(f"upload.folder={root} is no folder; give that of the code")
    home = Path(os.path.expanduser("~")).resolve()
    if root.resolve() in (home, *home.parents):
        raise UserError(
            f"{root} is your home folder, or has it inside; start where the code is, "
            "or give that folder by upload.folder="
        )


def listed(root: Path, leave_out: Sequence[str]) -> list[str]:
    """Names of files and links, relative to the folder; in a git repository, without
    what git ignores, and with those of repositories inside of it.

    Args:
        root: the folder.
        leave_out: see `left_out`.

    Raises:
        UserError: git cannot tell what it ignores.
    """
    names = _known_to_git(root)
    if names is None:
        names = list(_walked(root, leave_out, ""))
    return sorted(name for name in set(names) if not left_out(name, leave_out))


def left_out(name: str, leave_out: Sequence[str]) -> bool:
    """Whether a pattern holds for a path or for a folder on its way.

    Args:
        name: a path relative to the folder.
        leave_out: patterns of names at any depth, or with a slash in front, from the
            folder on.
    """
    parts = name.split("/")
    for pattern in leave_out:
        if pattern.startswith("/"):
            depth = pattern.count("/")
            if fnmatchcase("/" + "/".join(parts[:depth]), pattern):
                return True
        elif any(fnmatchcase(part, pattern) for part in parts):
            return True
    return False


def _known_to_git(root: Path) -> list[str] | None:
    """None where there is no repository."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        # Its messages are read, so they are asked for in one language.
        found = subprocess.run(
            command, cwd=root, capture_output=True, env={**os.environ, "LC_ALL": "C"}
        )
    except FileNotFoundError:
        if not any((one / ".git").exists() for one in (root, *root.parents)):
            return None
        raise UserError(
            f"{root} is in a git repository, and git, which knows what not to send, is "
            "not installed; install git"
        ) from None
    if found.returncode:
        told = found.stderr.decode(errors="replace")
        if _NO_REPOSITORY in told:
            return None
        raise UserError(_failed(root, told))
    names = (os.fsdecode(name) for name in found.stdout.split(b"\0"))
    return [name.rstrip("/") for name in names if name]


def _failed(root: Path, told: str) -> str:
    """In one line: git's own reason, and what mends it."""
    first = told.strip().partition("\n")[0].removeprefix("fatal: ")
    safe = _SAFE.search(told)
    mend = f"run {safe[0]}" if safe else "mend it until git status works there"
    return f"git does not list {root}: {first or 'without a reason'}; {mend}"


def _walked(root: Path, leave_out: Sequence[str], before: str) -> Iterator[str]:
    with os.scandir(root / before) as entries:
        for entry in entries:
            name = before + entry.name
            if left_out(name, leave_out):
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from _walked(root, leave_out, f"{name}/")
            else:
                yield name
