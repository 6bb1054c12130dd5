"""Which start of a run, of all that may still be running, writes its checkpoints.

Each takes the next number by making a file of that name, which only one can make; the
highest number is the owner's. So no late word of an earlier one takes that away.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import writing
from rrl_dist.training.checkpoint import owner_of, step_of
from rrl_dist.training.wishes import LeftError, Wish

_CLAIM = re.compile(r"attempt-([0-9a-f]{8})")


def claim_name(attempt: int) -> str:
    """Of the file that claims this number."""
    return f"attempt-{attempt:08x}"


def claimed(name: str) -> int | None:
    """The number that a file claims; None for other files."""
    match = _CLAIM.fullmatch(name)
    return None if match is None else int(match[1], 16)


def newest_claim(names: Iterable[str]) -> int:
    """The highest number among names of files; 0 if there is none."""
    return max((claimed(name) or 0 for name in names), default=0)


def newest_attempt(names: Iterable[str]) -> int:
    """As `newest_claim`, also of those whose checkpoints are all that is left."""
    names = list(names)
    made = [owner_of(name) or 0 for name in names if step_of(name) is not None]
    return max(newest_claim(names), *made, 0)


def claim(folder: Path, above: int) -> int:
    """Take the next number in a folder; returns it.

    Args:
        folder: of the checkpoints; it need not exist.
        above: another number that it must be higher than.

    Raises:
        LeftError: another start has claimed a number meanwhile.
        UserError: the disk cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        attempt = max(newest_attempt(_names(folder)), above) + 1
        try:
            (folder / claim_name(attempt)).touch(exist_ok=False)
        except FileExistsError:
            raise LeftError(Wish.SUPERSEDED) from None
        check_owner(folder, attempt)
        for name in _names(folder):
            if (claimed(name) or attempt) < attempt:
                (folder / name).unlink(missing_ok=True)
    return attempt


def check_owner(folder: Path, attempt: int) -> None:
    """Whether an attempt may still write.

    Raises:
        LeftError: another start of the run has claimed a higher number.
        UserError: its claim is gone.
    """
    newest = newest_claim(_names(folder))
    if newest > attempt:
        raise LeftError(Wish.SUPERSEDED)
    if newest < attempt:
        raise UserError(
            f"{folder} has lost files that this run had written; leave that folder to "
            "it, and give the same command again"
        )


@contextmanager
def owned(folder: Path, attempt: int) -> Iterator[None]:
    """What an attempt writes there.

    Raises:
        LeftError: a later attempt has removed what was half written.
    """
    try:
        yield
    except FileNotFoundError:
        check_owner(folder, attempt)
        raise


def _names(folder: Path) -> list[str]:
    return [path.name for path in folder.glob("*")]
