"""Auto-PGD: a PGD that chooses its step sizes by itself.

Croce and Hein 2020, arXiv:2003.01690, Algorithm 1, with the roundings of the authors'
code (fra31/auto-attack): lengths between checkpoints are whole numbers, and the first
condition includes equality. Only the first comparison of a run differs from that code,
which makes it with zero: here, as in the paper, it is made with the starting point.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rrl_dist.attacks.ascent import value_and_gradient
from rrl_dist.attacks.balls import Ball, as_column
from rrl_dist.attacks.checks import check_counts, check_inputs
from rrl_dist.attacks.classifier import Classifier, borrowed
from rrl_dist.attacks.margins import cross_entropy, dlr, misclassified
from rrl_dist.attacks.micro_batches import in_micro_batches
from rrl_dist.attacks.result import Attacked, Best
from rrl_dist.core.errors import UserError

# Constants of the paper, §3.
MOMENTUM = 0.75  # alpha: share of the new step
RHO = 0.75  # steps that must rise for the step size to stay
FIRST_INTERVAL, SHORTENED_BY, SHORTEST = 0.22, 0.03, 0.06  # shares of all steps

Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[str, Loss] = {"ce": cross_entropy, "dlr": dlr}


def intervals(steps: int) -> Iterator[int]:
    """Steps between checkpoints, `steps` in all; the last may be cut short."""
    length = max(int(FIRST_INTERVAL * steps), 1)
    done = 0
    while done < steps:
        yield min(length, steps - done)
        done += length
        length = max(
            length - max(int(SHORTENED_BY * steps), 1), max(int(SHORTEST * steps), 1)
        )


class Climb(NamedTuple):
    """Where each sample's ascent stands; all tensors have N rows.

    Attributes:
        center, y: clean image and label.
        x, x_old, grad: next iterate's origin, the iterate before, the gradient at x.
        value: value at the iterate visited last.
        top, top_grad, top_value: the iterate of highest value in this restart.
        checked: `top_value` at the last checkpoint.
        halved: whether the last checkpoint halved the step size.
        step_size: length of the next step, in [0, 1] pixels.
    """

    center: Tensor
    y: Tensor
    x: Tensor
    x_old: Tensor
    grad: Tensor
    value: Tensor
    top: Tensor
    top_grad: Tensor
    top_value: Tensor
    checked: Tensor
    halved: Tensor
    step_size: Tensor

    @classmethod
    def begin(
        cls,
        center: Tensor,
        y: Tensor,
        x: Tensor,
        value: Tensor,
        grad: Tensor,
        step_size: Tensor,
    ) -> "Climb":
        """At the first iterate x."""
        return cls(
            center=center,
            y=y,
            x=x,
            x_old=x,
            grad=grad,
            value=value,
            top=x,
            top_grad=grad,
            top_value=value,
            checked=value,
            # The first checkpoint has no interval before it to compare with.
            halved=torch.ones_like(y, dtype=torch.bool),
            step_size=step_size,
        )

    def moved(self, ball: Ball, momentum: float) -> Tensor:
        """The next iterate, eqs. 2 and 3 of the paper."""
        step = as_column(self.step_size, self.x) * ball.steepest(self.grad)
        goal = ball.project(self.x + step, self.center)
        inertia = (1 - momentum) * (self.x - self.x_old)
        return ball.project(self.x + momentum * (goal - self.x) + inertia, self.center)

    def at(self, x: Tensor, value: Tensor, grad: Tensor) -> "Climb":
        """After a visit to x."""
        higher = value > self.top_value
        pick = as_column(higher, x)
        return self._replace(
            x=x,
            x_old=self.x,
            grad=grad,
            value=value,
            top=torch.where(pick, x, self.top),
            top_grad=torch.where(pick, grad, self.top_grad),
            top_value=torch.where(higher, value, self.top_value),
        )

    def checkpoint(self, rises: Tensor, length: int) -> "Climb":
        """Where too few of the last `length` steps rose, or nothing new was reached
        at an unchanged step size: back to the top with half the step."""
        stalled = rises <= RHO * length
        flat = ~self.halved & (self.checked >= self.top_value)
        halved = stalled | flat
        pick = as_column(halved, self.x)
        return self._replace(
            x=torch.where(pick, self.top, self.x),
            grad=torch.where(pick, self.top_grad, self.grad),
            checked=self.top_value,
            halved=halved,
            step_size=torch.where(halved, self.step_size / 2, self.step_size),
        )


Phase = Callable[..., tuple[Tensor, ...]]


@dataclass(frozen=True, kw_only=True)
class APGD:
    """Auto-PGD that spends nothing on what is decided.

    It passes over what is wrong from the start, and is done with a sample at the first
    checkpoint at which a wrong image is known: a weak model costs little. Kept is the
    wrong image of highest loss, or, if none is wrong, the image of highest loss, the
    clean one included.

    Attributes:
        ball: the threat model.
        loss: what is raised: "ce", the cross-entropy, or "dlr", the difference of
            logits ratio.
        steps: gradient steps of a restart.
        restarts: runs of a sample, until one succeeds.
        seed: draws depend on (seed, name, restart, sample).
        micro_batch: images of every call of the model.

    Raises:
        UserError: if a number is out of range.
    """

    ball: Ball
    loss: str
    steps: int
    restarts: int
    seed: int
    micro_batch: int

    def __post_init__(self) -> None:
        check_counts(
            steps=self.steps, restarts=self.restarts, micro_batch=self.micro_batch
        )
        if self.loss not in LOSSES:
            raise UserError(f"apgd has loss={self.loss}; choose {'|'.join(LOSSES)}")

    @property
    def name(self) -> str:
        """Its name in AutoAttack."""
        return f"apgd-{self.loss}"

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, index: Tensor | None = None
    ) -> Tensor:
        """As `run`, the images alone."""
        return self.run(model, x, y, index).x_adv

    def run(
        self, model: nn.Module, x: Tensor, y: Tensor, index: Tensor | None = None
    ) -> Attacked:
        """See `rrl_dist.attacks.result.Attack.run`."""
        index = torch.arange(len(x), device=x.device) if index is None else index
        check_inputs(x, y, index)
        if self.ball.eps == 0 or len(x) == 0:
            return Attacked(x.detach().clone(), torch.zeros_like(y))
        with borrowed(model) as classifier:
            clean = partial(_clean, classifier, self._loss)
            best = Best(*in_micro_batches(clean, x, y, size=self.micro_batch))
            queries = torch.ones_like(y)
            for restart in range(self.restarts):
                phases = self._phases(classifier, restart)
                self._climb(phases, best, queries, (x, y, index))
        return Attacked(best.x, queries)

    @property
    def _loss(self) -> Loss:
        return LOSSES[self.loss]

    def _phases(
        self, classifier: Classifier, restart: int
    ) -> Iterator[tuple[Phase, int]]:
        """What a restart does between checkpoints, with its forward passes."""
        yield partial(self._begin, classifier, restart), 1
        for number, length in enumerate(intervals(self.steps)):
            first = number == 0
            step = partial(_advance, classifier, self._loss, self.ball, length, first)
            yield step, length

    def _climb(
        self,
        phases: Iterable[tuple[Phase, int]],
        best: Best,
        queries: Tensor,
        samples: tuple[Tensor, Tensor, Tensor],
    ) -> None:
        """One restart of what is still right; writes into `best` and `queries`."""
        alive = (~best.wrong).nonzero()[:, 0]
        state = tuple(column[alive] for column in (*best, *samples))
        for phase, forwards in phases:
            if len(alive) == 0:
                return
            state = in_micro_batches(phase, *state, size=self.micro_batch)
            for column, part in zip(best, state[:3], strict=True):
                column[alive] = part
            queries[alive] += forwards
            right = ~best.wrong[alive]
            # Repacked: a sample's outcome does not depend on its companions.
            alive, state = alive[right], tuple(column[right] for column in state)

    def _begin(
        self, classifier: Classifier, restart: int, *state: Tensor
    ) -> tuple[Tensor, ...]:
        """(best, x, y, index) -> (best, climb) at a random point of the surface."""
        best, (center, y, index) = Best(*state[:3]), state[3:]
        key = (self.name, restart)
        x = self.ball.surface_start(center, seed=self.seed, key=key, index=index)
        value, grad, wrong = _visit(classifier, self._loss, x, y)
        step_size = torch.full_like(value, 2 * self.ball.eps)
        climb = Climb.begin(center, y, x, value, grad, step_size)
        return *best.offer(x, value, wrong), *climb


def _advance(
    classifier: Classifier,
    loss: Loss,
    ball: Ball,
    length: int,
    first: bool,
    *state: Tensor,
) -> tuple[Tensor, ...]:
    """(best, climb) -> (best, climb) after the steps to the next checkpoint."""
    best, climb = Best(*state[:3]), Climb(*state[3:])
    rises = torch.zeros_like(climb.value)
    for step in range(length):
        # The very first step has no predecessor to keep a share of.
        x = climb.moved(ball, 1.0 if first and step == 0 else MOMENTUM)
        value, grad, wrong = _visit(classifier, loss, x, climb.y)
        best = best.offer(x, value, wrong)
        rises += value > climb.value
        climb = climb.at(x, value, grad)
    return *best, *climb.checkpoint(rises, length)


def _visit(
    classifier: Classifier, loss: Loss, x: Tensor, y: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss (-inf for NaN), its gradient, and whether the model is wrong."""
    logits: Tensor | None = None

    def value(x: Tensor) -> Tensor:
        nonlocal logits
        logits = classifier(x)
        return loss(logits, y)

    values, grad = value_and_gradient(value, x)
    assert logits is not None
    return values.nan_to_num(nan=-torch.inf), grad, misclassified(logits, y)


def _clean(
    classifier: Classifier, loss: Loss, x: Tensor, y: Tensor
) -> tuple[Tensor, ...]:
    logits = classifier.clean(x, y)
    return Best.of(x, loss(logits, y), misclassified(logits, y))
