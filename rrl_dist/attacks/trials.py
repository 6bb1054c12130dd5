"""Restarts and targets of many samples in micro-batches that are never short of work.

A trial is one run of an attack on one sample: a restart, or a target class. Trials sit
in the rows of a few micro-batches, each at its own step. Where one ends the next takes
its row, so that broken samples leave no row idle; where none is left to begin, those
that still run move together into fewer micro-batches. Every call of the model has one
shape, and rows do not mix: what a trial finds does not depend on the others, and so not
on batch size, order or worker.

A sample is broken by its first successful trial, in their order. Later trials of it are
given up or never begun; earlier ones, which may still run, go on to their end. So the
image and the count of queries do not depend on the packing either.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

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


@runtime_checkable
class LooksAhead(Method, Protocol):
    """A method that can use rows which are free: they try what a trial comes to next if
    nothing before is kept, so that its steps are made several at a time."""

    def step_ahead(
        self, classifier: Classifier, state: Any, leader: Tensor, lead: Tensor
    ) -> Any:
        """As many steps as there are rows for them, with the outcome of `step`.

        Args:
            classifier: the model.
            state: of M rows; what free ones hold is not read.
            leader: [M] int64, the row of the trial that a row works for; itself for
                those that hold one.
            lead: [M] int64, how far ahead: 0 for those that hold a trial, and 1, 2, ...
                without a gap among the others of each.
        """


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


# Rows that move together where a call of the model has fewer: what is done once for all
# of them costs less, and more of them can be in step.
TOGETHER = 64


@dataclass(frozen=True)
class Packing:
    """How trials are put into micro-batches.

    Attributes:
        size: rows of a micro-batch, the shape of every call of the model.
        in_turn: as the authors' codes of AutoAttack: no trial begins before all of
            the number before it have ended, and none ends before its last step.
    """

    size: int
    in_turn: bool = False

    @property
    def rows(self) -> int:
        """The most that are in step: one micro-batch, or several small ones.

        Tiny ones stay alone: sums over a single row may be made in another order.
        """
        return self.size * max(TOGETHER // self.size, 1) if self.size > 7 else self.size
