"""Checkpoints of a training run: everything that the next step depends on.

One is a file for each part of the state and, written after all of them, a small JSON
with their hashes; without that there is none. A half-written or damaged one is found by
it, named, and the one before it is used.

Names of files bear the attempt, which is one start of the run, that they belong to. One
that begins takes over what counts of earlier ones by links of its own name, and an
attempt removes only files of its own and of earlier ones. So whatever is still running
of an earlier one, and wherever it stood still, changes nothing that a later one has.
"""

import pickle
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import file_hash, link, read_json, write_json, writing
from rrl_dist.training.checkpoint_parts import assemble

_ENTRIES = {"identity", "step", "workers", "objective"}
_COMMIT = re.compile(r"step-(\d{8,})-([0-9a-f]{8})\.json")
_FILE = re.compile(r"\.?step-\d{8,}-([0-9a-f]{8})[.-].*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
# What torch raises on files that are not its own, or hold more than plain values.
_UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
)


@dataclass(frozen=True)
class Commit:
    """What makes files of parts a checkpoint.

    Attributes:
        step: optimizer steps done.
        attempt: of the run, which made it.
        hashes: sha256 of each part's file, in order.
        measured: what the probe found, by metric.
        owner: the attempt whose name its files bear.
    """

    step: int
    attempt: int
    hashes: tuple[str, ...]
    measured: Mapping[str, float]
    owner: int = field(compare=False)

    @property
    def name(self) -> str:
        """Of the file that it is in."""
        return f"step-{self.step:08d}-{self.owner:08x}.json"

    @property
    def parts(self) -> tuple[tuple[str, str], ...]:
        """Name and sha256 of each part's file, in order."""
        of = len(self.hashes)
        return tuple(
            (part_name(self.step, self.owner, number, of), sha256)
            for number, sha256 in enumerate(self.hashes)
        )

    @property
    def files(self) -> set[str]:
        """All that belong to it."""
        return {self.name, *(name for name, _ in self.parts)}

    def as_json(self) -> dict[str, Any]:
        """A plain value for `of_json`."""
        return {
            "step": self.step,
            "attempt": self.attempt,
            "parts": list(self.hashes),
            "measured": dict(self.measured),
            "owner": self.owner,
        }

    @classmethod
    def of_json(cls, found: Any) -> "Commit":
        """ValueError, KeyError or TypeError if it is none."""
        hashes = tuple(str(sha256) for sha256 in found["parts"])
        if not hashes or not all(_SHA256.fullmatch(sha256) for sha256 in hashes):
            raise ValueError("no hashes of parts")
        measured = {str(k): float(v) for k, v in dict(found["measured"]).items()}
        step, attempt = int(found["step"]), int(found["attempt"])
        return cls(step, attempt, hashes, measured, int(found["owner"]))

    @classmethod
    def of_file(cls, name: str, found: Any) -> "Commit":
        """As `of_json`. A link of the file bears the name of another owner."""
        commit = cls.of_json({**found, "owner": owner_of(name)})
        if commit.name != name:
            raise ValueError("the name is of another")
        return commit


def part_name(step: int, attempt: int, number: int, of: int) -> str:
    """Of the file of a part; `number` counts from 0."""
    return f"step-{step:08d}-{attempt:08x}-part-{number + 1:04d}-of-{of:04d}.pt"


def step_of(name: str) -> int | None:
    """Of the file of a commit; None for other names."""
    match = _COMMIT.fullmatch(name)
    return None if match is None else int(match[1])


def owner_of(name: str) -> int | None:
    """The attempt whose name a file of a checkpoint bears, also one half written; None
    for other files."""
    match = _FILE.fullmatch(name)
    return None if match is None else int(match[1], 16)


def in_line(commits: Iterable[Commit]) -> list[Commit]:
    """Those that the newest attempt's own history is made of, the newest first.

    Where a later attempt has made a checkpoint at a step or before, it did not go on
    from one of that step by an earlier attempt, which was late.
    """
    found: list[Commit] = []
    limit = least = 1 << 63
    attempt = None
    for each in sorted(commits, key=lambda c: (c.attempt, c.step, c.owner))[::-1]:
        if each.attempt != attempt:
            attempt, limit = each.attempt, least
        if each.step < limit:
            found.append(each)
        if each.hashes:  # or only its name is known, which may be of a link
            least = min(least, each.step)
    return sorted(found, key=lambda c: (c.step, c.owner), reverse=True)


class Checkpoints:
    """The checkpoints in one folder.

    Args:
        folder: where they are.
        notify: told in one line about a damaged checkpoint.
    """

    def __init__(self, folder: Path, notify: Callable[[str], None]) -> None:
        self.folder, self.notify = folder, notify
        self._known: str | None = None  # name of one whose hashes were checked

    def load(self) -> dict[str, Any] | None:
        """The newest undamaged state, on the CPU; None if there is none.

        Raises:
            UserError: the files are whole, and not ones that this project has written.
        """
        commit = self.newest_whole()
        return None if commit is None else self.read(commit)

    def read(self, commit: Commit) -> dict[str, Any]:
        """The whole state of a checkpoint, as one process would have it, on the CPU.

        Raises:
            UserError: as `load`.
        """
        try:
            # Mapped, files take no memory beside the state that is made of them.
            parts = [
                torch.load(
                    self.folder / name, map_location="cpu", weights_only=True, mmap=True
                )
                for name, _ in commit.parts
            ]
            state: dict[str, Any] = assemble(parts)
            missing = _ENTRIES - state.keys()
        except _UNREADABLE as error:
            raise self._foreign(commit, type(error).__name__) from None
        if missing:
            raise self._foreign(commit, f"without {min(missing)}")
        return state

    def commits(self) -> list[Commit]:
        """In the order that `load` tries them, without those that lack a file."""
        return [commit for commit in self._all() if self._there(commit)]

    def newest_whole(self) -> Commit | None:
        """What `load` reads; damaged ones before it are named."""
        found = self._all()
        for commit in found:
            if self._whole(commit):
                return commit
            back = "start" if commit is found[-1] else "checkpoint before it"
            self.notify(f"{self._shown(commit)} is damaged; going back to the {back}")
        return None

    def write(self, commit: Commit) -> None:
        """Make a checkpoint of parts that are on the disk."""
        write_json(self.folder / commit.name, commit.as_json())

    def adopt(self, attempt: int) -> Commit | None:
        """Take over, as files of this attempt, the newest one that is whole and those
        before it in its history; returns the newest.

        Where links can be made, it takes no room.

        Raises:
            UserError: the disk cannot be written.
        """
        while (newest := self.newest_whole()) is not None:
            try:
                adopted = self._linked(newest, attempt)
            except FileNotFoundError:
                continue  # it was removed by an earlier attempt, which has newer ones
            before = newest.step
            for each in in_line(self.commits()):
                if each.step < before:
                    before = each.step
                    with suppress(FileNotFoundError):
                        self._linked(each, attempt)
            self._known = adopted.name
            return adopted
        return None

    def keep_only(self, commits: Iterable[Commit], attempt: int) -> None:
        """Remove all other files of this attempt and of those before it."""
        kept = {name for commit in commits for name in commit.files}
        with writing(self.folder):
            found = [path for path in self.folder.glob("*step-*") if path.is_file()]
            gone = [path for path in found if is_old(path.name, attempt, kept)]
            # What is there without its parts would be a damaged checkpoint.
            for path in sorted(gone, key=lambda path: step_of(path.name) is None):
                path.unlink(missing_ok=True)

    def _linked(self, commit: Commit, attempt: int) -> Commit:
        own = replace(commit, owner=attempt)
        parts = zip(commit.parts, own.parts, strict=True)
        names = [(old, new) for (old, _), (new, _) in parts]
        for old, new in [*names, (commit.name, own.name)]:
            if old != new:
                (self.folder / new).unlink(missing_ok=True)
                link(self.folder / old, self.folder / new)
        return own

    def _all(self) -> list[Commit]:
        """In the order that they are tried; those that cannot be read have no part."""
        found = []
        for path in self.folder.glob("step-*.json"):
            step, owner = step_of(path.name), owner_of(path.name)
            if step is not None and owner is not None:
                found.append(_read(path) or Commit(step, owner, (), {}, owner))
        first = in_line(found)
        late = [commit for commit in found if commit not in first]
        return [*first, *sorted(late, key=lambda c: (c.attempt, c.step), reverse=True)]

    def _there(self, commit: Commit) -> bool:
        return bool(commit.hashes) and all(
            (self.folder / name).is_file() for name, _ in commit.parts
        )

    def _whole(self, commit: Commit) -> bool:
        """Whether the parts are those that it was written for."""
        if not self._there(commit) or commit.name == self._known:
            return self._there(commit)
        try:
            return all(file_hash(self.folder / n) == h for n, h in commit.parts)
        except FileNotFoundError:
            return False

    def _shown(self, commit: Commit) -> Path:
        """What all names of a checkpoint's files begin with."""
        return (self.folder / commit.name).with_suffix("")

    def _foreign(self, commit: Commit, found: str) -> UserError:
        return UserError(
            f"{self._shown(commit)} is not a checkpoint that rrl has written ({found}):"
            f" nothing in it was run; remove {commit.name} to go on from the "
            "checkpoint before it"
        )


def is_old(name: str, attempt: int, kept: set[str]) -> bool:
    """Whether an attempt may remove a file, and these do not need it."""
    owner = owner_of(name)
    return owner is not None and owner <= attempt and name not in kept


def _read(file: Path) -> Commit | None:
    try:
        return Commit.of_file(file.name, read_json(file))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
