"""Checkpoints are written while training goes on, in one thread of each worker.

The thread takes no part in collectives: workers tell each other by small files that
their parts are on the disk, and rank 0 makes a checkpoint of them when all are.
"""

import math
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import write_bytes
from rrl_dist.core.store import open_store
from rrl_dist.training.checkpoint import Checkpoints, Commit, part_name
from rrl_dist.training.checkpoint_claim import check_owner, claim, owned
from rrl_dist.training.checkpoint_copy import CheckpointCopy, OtherRunError
from rrl_dist.training.checkpoint_parts import Part, write_part
from rrl_dist.training.checkpoint_policy import METRICS, Kept, kept_of
from rrl_dist.training.checkpoint_threads import Copying, Writing

Probe = Callable[[], dict[str, Any]]

_LOOK_SECONDS = 0.02  # between two looks for the others' parts
# For the others' parts at an end without `settle`, such as by an error.
_GRACE_SECONDS = 2.0
# Until a file that another worker has written is seen by rank 0.
_SEEN_SECONDS = 120.0


class CheckpointWriter:
    """Writes the checkpoints of one attempt of a run.

    On rank 0 `recover` comes first; on all workers `join`, then `save` and `settle`,
    and `close` at the end, however it came.

    Args:
        checkpoints: where they are.
        kept: which stay.
        copy: where they are copied to, or None.

    Attributes:
        folder, notify: of `checkpoints`.
        attempt: a number higher than those of all attempts before; on rank 0 from
            `recover` on.
        saved: the step that `save` was last called for, or None.
    """

    def __init__(
        self, checkpoints: Checkpoints, kept: Kept, copy: CheckpointCopy | None
    ) -> None:
        self.checkpoints, self.kept, self.copy = checkpoints, kept, copy
        self.folder, self.notify = checkpoints.folder, checkpoints.notify
        self.attempt = 0
        self.saved: int | None = None
        self._start: float = math.inf
        self._measured: Mapping[str, Any] = {}
        self._writing: Writing | None = None
        self._copying = Copying(self._update)
        self._closing = threading.Event()
        self._last_look = math.inf
        self._all_written = math.inf  # when all workers had written their parts

    def recover(self) -> None:
        """On rank 0, before the state is loaded: take over what is there, remove what
        kills have left, and fetch a newer checkpoint from the copy.

        Raises:
            UserError: the disk cannot be used, or the copy where nothing is here.
            LeftError: another attempt began meanwhile.
        """
        above, away = 0, None
        try:
            if self.copy is not None:
                above = self.copy.newest_attempt(self.folder)
        except OtherRunError:
            raise
        except UserError as error:
            away = error
        # From now on what is still running of an earlier attempt commits nothing.
        self.attempt = claim(self.folder, above)
        with owned(self.folder, self.attempt):
            newest = self.checkpoints.adopt(self.attempt)
            self.checkpoints.keep_only(self._kept(), self.attempt)
            if self.copy is not None:
                self._recover_copy(self.copy, newest, away)

    def _recover_copy(
        self, copy: CheckpointCopy, newest: Commit | None, away: UserError | None
    ) -> None:
        try:
            if away is not None:
                raise away
            copy.claim(self.attempt, self.folder)
            copy.fetch(self.checkpoints, self.kept, newest, self.attempt)
        except UserError as error:
            if newest is None:
                raise
            self.notify(f"the copy of checkpoints is not used now: {error}")

    def join(self, attempt: int, start: int) -> None:
        """On all workers, before the first step.

        Args:
            attempt: rank 0's number of this attempt.
            start: the step that it begins with. Checkpoints of later ones by earlier
                attempts were damaged, or it would have begun with them.
        """
        recovered = self.attempt == attempt  # by this worker, the first
        self.attempt, self._start = attempt, start
        if recovered:
            self.checkpoints.keep_only(self._kept(), attempt)
            # What a kill has left uncopied is copied without waiting for the next.
            self._copy_soon()

    def noting(self, probe: Probe | None) -> Probe | None:
        """A probe whose values the next checkpoint is judged by."""
        if probe is None:
            return None

        def measure() -> dict[str, Any]:
            self._measured = found = probe()
            return found

        return measure

    def save(self, step: int, part: Part | None) -> None:
        """Begin to write this worker's part, after `settle`; None: it has none.

        Args:
            step: optimizer steps done.
            part: which nothing changes any more.
        """
        found = {name: self._measured.get(name) for name in METRICS}
        measured = {
            name: value
            for name, value in found.items()
            if isinstance(value, float) and math.isfinite(value)
        }
        self._measured, self.saved = {}, step
        if part is None:
            return
        self._all_written = math.inf
        self._writing = Writing(
            lambda: self._write_part(step, part),
            lambda sha256: self._commit(step, part, sha256, measured),
        )

    def settle(self, agree: Callable[[bool], bool], *, copied: bool) -> None:
        """Wait on all workers until what `save` began is durable.

        Args:
            agree: whether any worker says True; all workers call it, so that none goes
                on where another failed.
            copied: whether to wait for the copy too, and take it for an error if it
                could not be made. If not, it is tried again with the next checkpoint.

        Raises:
            UserError: the disk is full, or cannot be used.
            LeftError: another attempt writes these checkpoints now.
            RuntimeError: another worker raises one of these.
        """
        begun = self._writing
        _raise(None if begun is None else begun.own.exception(), agree)
        self._all_written = time.monotonic()
        error = None if begun is None else begun.durable.exception()
        _raise(error or self._copy_error(wait=copied), agree)
        self._writing = None

    def _copy_error(self, *, wait: bool) -> BaseException | None:
        error = self._copying.error(wait=wait)
        return None if isinstance(error, UserError) and not wait else error

    def close(self, patience: float = _GRACE_SECONDS) -> None:
        """End the thread, after what it has begun.

        Args:
            patience: seconds to wait for parts of other workers, which may be gone.
        """
        self._last_look = time.monotonic() + patience
        self._closing.set()
        if self._writing is not None:
            self._writing.join()
        self._copying.error(wait=True)

    def _write_part(self, step: int, part: Part) -> str:
        name = part_name(step, self.attempt, part.number, part.of)
        path = self.folder / name
        with owned(self.folder, self.attempt):
            sha256 = write_part(path, part.state)
            if part.number:
                write_bytes(path.with_suffix(".sha256"), sha256.encode())
        return sha256

    def _commit(
        self, step: int, part: Part, sha256: str, measured: dict[str, float]
    ) -> None:
        """On rank 0, of all parts."""
        if part.number:
            return
        names = [part_name(step, self.attempt, n, part.of) for n in range(1, part.of)]
        hashes = (sha256, *(self._hash_of(name) for name in names))
        commit = Commit(step, self.attempt, hashes, measured, self.attempt)
        check_owner(self.folder, self.attempt)
        with owned(self.folder, self.attempt):
            self.checkpoints.write(commit)
        kept = self._kept()
        check_owner(self.folder, self.attempt)
        if commit not in kept:
            raise UserError(
                f"{self.folder}: files of the checkpoint of step {step} are gone as "
                "soon as they are written; leave that folder to this run"
            )
        self.checkpoints.keep_only(kept, self.attempt)
        self._copy_soon()

    def _kept(self) -> list[Commit]:
        """Of this attempt's, which has taken over what counts of earlier ones."""
        known = self.checkpoints.commits()
        return self.kept.of(
            c for c in known if c.owner == self.attempt and not self._is_void(c)
        )

    def _hash_of(self, name: str) -> str:
        """Of another worker's part, once that is on the disk."""
        told = (self.folder / name).with_suffix(".sha256")
        while True:
            try:
                return told.read_text()
            except FileNotFoundError:
                now = time.monotonic()
            if now > self._last_look:
                raise RuntimeError(f"{name} did not come before the end")
            if now - self._all_written > _SEEN_SECONDS:
                raise UserError(
                    f"{told} was written by another worker and is not seen by the "
                    "first; set storage= to a folder that all nodes share"
                )
            time.sleep(_LOOK_SECONDS)

    def _copy_soon(self) -> None:
        if self.copy is not None:
            self._copying.wish()

    def _update(self) -> None:
        assert self.copy is not None
        check_owner(self.folder, self.attempt)
        try:
            self.copy.update(
                self.checkpoints,
                self._kept,
                attempt=self.attempt,
                kept=self.kept,
                is_void=self._is_void,
                ended=self._closing.is_set,
            )
        except UserError as error:
            self.notify(f"a checkpoint is not copied yet: {error}")
            raise

    def _is_void(self, commit: Commit) -> bool:
        return commit.step > self._start and commit.attempt != self.attempt


def open_writer(
    settings: Mapping[str, Any],
    folder: Path,
    name: str,
    notify: Callable[[str], None],
) -> CheckpointWriter:
    """What writes a stage's checkpoints.

    Args:
        settings: `train.checkpoints`: `keep`, `best`, `copy`.
        folder: of the stage.
        name: of its run.
        notify: told single lines.
    """
    copy = None
    if settings["copy"] is not None:
        store = open_store(str(settings["copy"]))
        copy = CheckpointCopy(store, f"{name}/{folder.name}")
    checkpoints = Checkpoints(folder / "checkpoints", notify)
    return CheckpointWriter(checkpoints, kept_of(settings), copy)


def _raise(error: BaseException | None, agree: Callable[[bool], bool]) -> None:
    if agree(error is not None):
        raise error or RuntimeError("another worker could not write a checkpoint")
