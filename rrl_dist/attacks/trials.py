"""Restarts and targets of many samples in micro-batches that are never short of work.

A trial is one run of an attack on one sample: a restart, or a target class. Trials sit
in the rows of one micro-batch, each at its own step. Where one ends the next takes its
row, so that neither broken samples nor short tails leave rows idle. Every call of the
model has the micro-batch's shape, and rows do not mix: what a trial finds does not
depend on the others, and so not on batch size, order or worker.

A sample is broken by its first successful trial, in their order. Later trials of it are
given up or never begun; earlier ones, which may still run, go on to their end. So the
image and the count of queries do not depend on the packing either.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from rrl_dist.attacks.balls import as_column
from rrl_dist.attacks.classifier import Classifier


class Samples(NamedTuple):
    """What is attacked, one row each.

    Attributes:
        x: [N, ...] clean images.
        y: [N] int64 labels.
        ids: [N] int64, the samples; randomness belongs to them.
        logits: [N, K] of the clean images.
    """

    x: Tensor
    y: Tensor
    ids: Tensor
    logits: Tensor

    def rows(self, places: Tensor) -> "Samples":
        """Some of them, as fresh contiguous copies."""
        return Samples(*(column.index_select(0, places) for column in self))


class State(Protocol):
    """Where trials stand; a NamedTuple of tensors of one row for each.

    Attributes:
        best: [M, ...] the strongest image so far, within the ball.
        score: [M] how strong it is, comparable between trials; -inf for none.
        wrong: [M] bool, whether the model is wrong at `best`.
        done: [M] bool, whether the trial's steps are over.
        queries: [M] int64, forward passes so far.
    """

    @property
    def best(self) -> Tensor: ...
    @property
    def score(self) -> Tensor: ...
    @property
    def wrong(self) -> Tensor: ...
    @property
    def done(self) -> Tensor: ...
    @property
    def queries(self) -> Tensor: ...


class Method(Protocol):
    """An attack as trials that move step by step. Its rows must not mix."""

    def begin(self, samples: Samples, number: Tensor) -> Any:
        """The `State` of trials `number` [M] of M samples; no call of the model."""

    def step(self, classifier: Classifier, state: Any) -> Any:
        """One step of all rows, at any stage each, done ones too."""


@dataclass(frozen=True)
class Outcome:
    """What the trials of each sample have come to.

    Attributes:
        x: [N, ...] the image of the first successful trial, or the strongest of all.
        wrong: [N] bool.
        queries: [N] int64, forward passes of all trials up to the first success.
    """

    x: Tensor
    wrong: Tensor
    queries: Tensor


@dataclass(frozen=True)
class Packing:
    """How trials are put into micro-batches.

    Attributes:
        size: rows of a micro-batch.
        in_turn: as the authors' codes of AutoAttack: no trial begins before all of
            the number before it have ended, and none ends before its last step.
    """

    size: int
    in_turn: bool = False


def run_trials(
    method: Method,
    classifier: Classifier,
    samples: Samples,
    *,
    trials: int,
    packing: Packing,
) -> Outcome:
    """All trials of all samples, until each is broken or has none left.

    Args:
        method: the attack.
        classifier: the model, borrowed.
        samples: N rows; the model is right about them.
        trials: of each sample.
        packing: how they are put into micro-batches.
    """
    if len(samples.x) == 0:
        none = torch.zeros_like(samples.y)
        return Outcome(samples.x.clone(), none.bool(), none)
    board = _Board(samples, trials)
    seats = _Seats(board, packing)
    state: Any = None
    while seats.fill():
        state = seats.seated(method, state)
        state = method.step(classifier, state)
        ended = state.done if packing.in_turn else state.done | state.wrong
        for row, sample, number in seats.leave(ended.tolist()):
            board.record(sample, number, row, state)
    return board.outcome()


class _Board:
    """What has been found for each sample."""

    def __init__(self, samples: Samples, trials: int) -> None:
        self.samples, self.trials = samples, trials
        self.count = len(samples.x)
        self.x = samples.x.clone()
        self.score = [-float("inf")] * self.count
        self.author = [trials] * self.count  # the trial whose image is kept
        self.winner = [trials] * self.count  # the first that succeeded
        self.queries = torch.zeros(self.count, trials, dtype=torch.int64)

    def needs(self, sample: int, number: int) -> bool:
        """Whether that trial can still change the outcome."""
        return number < self.winner[sample]

    def record(self, sample: int, number: int, row: int, state: State) -> None:
        """A trial has ended."""
        self.queries[sample, number] = state.queries[row]
        if not self.needs(sample, number):
            return
        wrong, score = bool(state.wrong[row]), float(state.score[row])
        if wrong:
            self.winner[sample] = number
        else:
            # Of equals the first, whichever ended first.
            rank = (score, -number)
            held = (self.score[sample], -self.author[sample])
            if self.winner[sample] < self.trials or rank <= held:
                return
            self.score[sample] = score
        self.author[sample] = number
        self.x[sample] = state.best[row]

    def outcome(self) -> Outcome:
        device = self.samples.y.device
        winner = torch.tensor(self.winner)
        counted = torch.arange(self.trials) <= winner[:, None]
        queries = (self.queries * counted).sum(1)
        return Outcome(self.x, (winner < self.trials).to(device), queries.to(device))


class _Seats:
    """Which trial sits in which row."""

    def __init__(self, board: _Board, packing: Packing) -> None:
        self.board, self.packing = board, packing
        self.queue = self._waiting()
        self.taken: list[tuple[int, int] | None] = [None] * packing.size
        self.fresh: list[int] = []
        self.head: tuple[int, int] | None = next(self.queue, None)

    def _waiting(self) -> Iterator[tuple[int, int]]:
        """By number, then by sample: most are broken before their last trial."""
        for number in range(self.board.trials):
            for sample in range(self.board.count):
                if self.board.needs(sample, number):
                    yield sample, number

    def fill(self) -> bool:
        """Give free rows to those who wait; whether any row is taken."""
        self.fresh = []
        for row, held in enumerate(self.taken):
            if held is None and self._may_enter():
                self.taken[row], self.head = self.head, next(self.queue, None)
                self.fresh.append(row)
        return any(held is not None for held in self.taken)

    def _may_enter(self) -> bool:
        # Broken since it came to the head.
        while self.head is not None and not self.board.needs(*self.head):
            self.head = next(self.queue, None)
        if self.head is None:
            return False
        running = (held for held in self.taken if held is not None)
        return not self.packing.in_turn or all(h[1] == self.head[1] for h in running)

    def seated(self, method: Method, state: Any) -> Any:
        """The state with the fresh rows begun; the whole micro-batch is computed, since
        another shape may round otherwise."""
        if not self.fresh:
            return state
        device = self.board.samples.y.device
        # Free rows copy a taken one: the model gets an image, and nobody reads it.
        filler = next(held for held in self.taken if held is not None)
        held = [filler if seat is None else seat for seat in self.taken]
        place, number = torch.tensor(held, device=device).unbind(1)
        begun = method.begin(self.board.samples.rows(place), number)
        if state is None:
            return begun
        new = torch.zeros(len(held), dtype=torch.bool)
        new[self.fresh] = True
        new = new.to(device)
        columns = zip(begun, state, strict=True)
        return type(state)(*(torch.where(as_column(new, o), n, o) for n, o in columns))

    def leave(self, ended: list[bool]) -> Iterator[tuple[int, int, int]]:
        """Free the rows of trials that have ended, giving (row, sample, number), and of
        those that can change nothing any more."""
        for row, held in enumerate(self.taken):
            if held is not None and ended[row]:
                self.taken[row] = None
                yield row, *held
        for row, held in enumerate(self.taken):
            if held is not None and not self.board.needs(*held):
                self.taken[row] = None
