"""An attack of trials as a whole: what is wrong already, then trials of the rest.

With passes in bfloat16 these are followed by a few in float32: of what stays right, the
samples whose strongest image is so nearly wrong that bfloat16 cannot tell.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rrl_dist.attacks.balls import Ball
from rrl_dist.attacks.board import Board
from rrl_dist.attacks.checks import check_inputs
from rrl_dist.attacks.classifier import Classifier, borrowed
from rrl_dist.attacks.margins import misclassified
from rrl_dist.attacks.micro_batches import in_micro_batches
from rrl_dist.attacks.result import Attacked
from rrl_dist.attacks.seats import Seats
from rrl_dist.attacks.trials import LooksAhead, Method, Outcome, Packing, Samples


class Attack(Method, Protocol):
    """A method with what its runs depend on."""

    @property
    def ball(self) -> Ball:
        """The threat model."""

    def trials(self, classes: int) -> int:
        """Of each sample, with a model of so many classes."""


def attack_in_trials(
    method: "Attack",
    model: nn.Module,
    columns: tuple[Tensor, Tensor, Tensor | None],
    packing: Packing,
    precision: str,
) -> Attacked:
    """`Attack.run` of a method of trials.

    Images that are wrong from the start are given back as they are.

    Args:
        method: the attack.
        model: the model.
        columns: x, y and index, as `Attack.run` takes them.
        packing: how trials are put into micro-batches.
        precision: of the passes, see `precision.PRECISIONS`.
    """
    x, y, given = columns
    index = torch.arange(len(x), device=x.device) if given is None else given
    check_inputs(x, y, index)
    if method.ball.eps == 0 or len(x) == 0:
        return Attacked(x.detach().clone(), torch.zeros_like(y))
    with borrowed(model, packing.size) as classifier:
        clean = partial(_clean_logits, classifier)
        (logits,) = in_micro_batches(clean, x, y, size=packing.size)
        alive = (~misclassified(logits, y)).nonzero()[:, 0]
        samples = Samples(x.detach(), y, index, logits).rows(alive)
        trials = method.trials(logits.shape[1])
        called = classifier.sooner(x, precision) if len(alive) else classifier
        run = partial(run_trials, method, trials=trials, packing=packing)
        found = run(called, samples)
        if called.is_rough:
            found = _cleared(found, samples, called, run)
        called.verify()
    # A copy in one layout, whatever the caller's.
    x_adv, queries = (
        x.detach().clone(memory_format=torch.contiguous_format),
        torch.ones_like(y),
    )
    x_adv[alive] = found.x
    queries[alive] += found.queries
    return Attacked(x_adv, queries)


def _cleared(
    found: Outcome,
    samples: Samples,
    rough: Classifier,
    run: Callable[[Classifier, Samples], Outcome],
) -> Outcome:
    """What a copy in bfloat16 leaves in doubt, tried again by the one in float32."""
    fine = rough.original
    ask = partial(_standing, fine, rough)
    size = fine.size or len(found.x)
    wrong, doubted = in_micro_batches(ask, found.x, samples.y, size=size)
    wrong = found.wrong | wrong
    rows = (doubted & ~wrong).nonzero()[:, 0]
    again = run(fine, samples.rows(rows))
    if fine.original is not fine:  # else whoever borrowed it does
        fine.verify()
    return Outcome(
        found.x.index_copy(0, rows, again.x),
        wrong.index_copy(0, rows, again.wrong),
        found.queries.index_add(0, rows, again.queries),
    )


def _standing(
    fine: Classifier, rough: Classifier, x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor]:
    """Whether images are wrong, and whether so near to it that bfloat16 may be
    mistaken."""
    logits = fine(x)
    return fine.wrong(x, logits, y), rough.doubted(logits, y)


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
    board = Board(samples, trials)
    seats = Seats(board, packing)
    state: Any = None
    while seats.fill():
        state = seats.seated(method, state)
        ahead = seats.ahead() if isinstance(method, LooksAhead) else None
        if ahead is not None and isinstance(method, LooksAhead):
            state = method.step_ahead(classifier, state, *ahead)
        else:
            state = method.step(classifier, state)
        ended = state.done if packing.in_turn else state.done | state.wrong
        for row, sample, number in seats.leave(ended.tolist()):
            board.record(sample, number, row, state)
    return board.outcome()


def _clean_logits(classifier: Classifier, x: Tensor, y: Tensor) -> tuple[Tensor]:
    return (classifier.clean(x, y),)
