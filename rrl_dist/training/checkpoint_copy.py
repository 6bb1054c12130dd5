"""A copy of a run's checkpoints in another place, such as an object store."""

import mmap
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import cast

from rrl_dist.core.errors import DamagedError, UserError
from rrl_dist.core.storage import file_hash, write_bytes
from rrl_dist.core.store import Store
from rrl_dist.training.checkpoint import (
    Checkpoints,
    Commit,
    in_line,
    is_old,
    step_of,
)
from rrl_dist.training.checkpoint_claim import (
    claim_name,
    claimed,
    newest_attempt,
    newest_claim,
)
from rrl_dist.training.checkpoint_policy import Kept
from rrl_dist.training.wishes import LeftError, Wish

_UNREADABLE = (FileNotFoundError, DamagedError, ValueError, KeyError, TypeError)


class OtherRunError(UserError):
    """The place of the copy is another run's."""


class CheckpointCopy:
    """The checkpoints of one stage below one name of a store.

    As in the folder that they are copied from, the commit is written after the parts,
    and is the first that is removed: at each moment what is there is whole. All
    operations raise `UserError` where the store cannot be used, and LeftError where a
    later attempt has claimed it.

    Args:
        store: where.
        name: of the stage in it, which no other run may have.
    """

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name = store, name
        self._known: dict[str, Commit] = {}
        self._claimed = False

    def newest_attempt(self, folder: Path) -> int:
        """The highest number of an attempt that has been here; 0 if none has.

        Args:
            folder: that is copied.

        Raises:
            OtherRunError: another one was copied here.
        """
        names = self._names()
        newest = newest_claim(names)
        if newest:
            file = f"{self.name}/{claim_name(newest)}"
            with suppress(*_UNREADABLE):
                other = str(self.store.read_json(file)["folder"])
                if other != str(folder.absolute()):
                    raise OtherRunError(
                        f"{self.store.address}/{self.name} holds copies of {other}; "
                        "choose another train.checkpoints.copy=, or remove "
                        f"{claim_name(newest)} there to go on from them here"
                    )
        return newest_attempt(names)

    def claim(self, attempt: int, folder: Path) -> None:
        """Note there who writes now and from where, so that a place that cannot be
        written is told of before anything is trained."""
        about = {"folder": str(folder.absolute())}
        self.store.write_json(f"{self.name}/{claim_name(attempt)}", about)
        for name in self._owned(attempt):
            if (claimed(name) or attempt) < attempt:
                self.store.remove(f"{self.name}/{name}")
        self._claimed = True

    def fetch(
        self, into: Checkpoints, kept: Kept, newest: Commit | None, attempt: int
    ) -> None:
        """Bring the newest one that is whole into a folder that has none as new.

        Args:
            into: the folder, as files of `attempt`.
            kept: of its checkpoints, what stays.
            newest: that is whole in the folder.
            attempt: that begins.
        """
        there, here = self._commits(self._names()), into.commits()
        order = in_line([*there, *here])
        if newest is None:  # then a late one is better than none
            order += sorted((c for c in there if c not in order), key=_made)[::-1]
        step = -1 if newest is None else newest.step
        for commit in order:
            if commit.step <= step or commit not in there:
                continue
            place = f"{self.store.address} (step {commit.step})"
            if self._fetched(commit, into, attempt):
                into.notify(f"going on from the copy in {place}")
                return
            into.keep_only(kept.of(into.commits()), attempt)
            into.notify(f"the copy in {place} is damaged; looking for one before it")

    def update(
        self,
        source: Checkpoints,
        wanted: Callable[[], list[Commit]],
        *,
        attempt: int,
        kept: Kept,
        is_void: Callable[[Commit], bool],
        ended: Callable[[], bool],
    ) -> None:
        """Copy what is missing here, and remove what need not stay.

        Args:
            source: where they are.
            wanted: those that are to be here, as of now.
            attempt: that they are copied for.
            kept: what stays.
            is_void: whether one is of no use, whatever `kept` says.
            ended: asked between files whether to leave the rest to the next time.
        """
        if not self._claimed:
            if self.newest_attempt(source.folder) > attempt:
                raise LeftError(Wish.SUPERSEDED)
            self.claim(attempt, source.folder)
        names = self._owned(attempt)
        there = kept.of(c for c in self._commits(names) if not is_void(c))
        if there:
            # What kills have left goes first: it would add to what is being written.
            self._keep(there, names, attempt)
        for commit in wanted():
            if commit in there:
                continue
            for name, _ in commit.parts:
                # One that need not stay any more is followed by a newer one.
                if ended() or commit not in wanted():
                    return
                with suppress(FileNotFoundError):  # removed since
                    self._upload(source.folder / name)
            if commit not in wanted():
                return
            self._owned(attempt)
            self.store.write_json(f"{self.name}/{commit.name}", commit.as_json())
            there = kept.of([*(c for c in there if c.step != commit.step), commit])
            self._keep(there, self._owned(attempt), attempt)

    def _keep(self, commits: list[Commit], names: Iterable[str], attempt: int) -> None:
        """Of these names, remove those that the attempt may and no commit needs."""
        kept = {name for commit in commits for name in commit.files}
        gone = [name for name in names if is_old(name, attempt, kept)]
        for name in sorted(gone, key=lambda name: step_of(name) is None):
            self._known.pop(name, None)
            self.store.remove(f"{self.name}/{name}")

    def _names(self) -> list[str]:
        below = len(self.name) + 1
        return [name[below:] for name in self.store.names(self.name)]

    def _owned(self, attempt: int) -> list[str]:
        """The names there, while no later attempt has claimed them."""
        names = self._names()
        newest = newest_claim(names)
        if newest > attempt:
            raise LeftError(Wish.SUPERSEDED)
        if newest < attempt:  # what was there is gone
            self._claimed = False
            raise UserError(
                f"{self.store.address}/{self.name} has lost its files; see to it that "
                "nothing else removes them"
            )
        return names

    def _commits(self, names: Iterable[str]) -> list[Commit]:
        """Those that can be read; none changes once it is written."""
        for name in names:
            if step_of(name) is not None and name not in self._known:
                with suppress(*_UNREADABLE):
                    found = self.store.read_json(f"{self.name}/{name}")
                    self._known[name] = Commit.of_file(name, found)
        return [self._known[name] for name in names if name in self._known]

    def _fetched(self, commit: Commit, into: Checkpoints, attempt: int) -> bool:
        own = replace(commit, owner=attempt)
        for (name, sha256), (own_name, _) in zip(commit.parts, own.parts, strict=True):
            path = into.folder / own_name
            try:
                write_bytes(path, self.store.read(f"{self.name}/{name}"))
            except (FileNotFoundError, DamagedError):
                return False
            if file_hash(path) != sha256:
                return False
        into.write(own)
        return True

    def _upload(self, path: Path) -> None:
        with path.open("rb") as file:
            # Not read, a large part takes no memory.
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self.store.write(f"{self.name}/{path.name}", cast(bytes, content))


def _made(commit: Commit) -> tuple[int, int]:
    return commit.attempt, commit.step
