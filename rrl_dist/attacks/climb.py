"""How Auto-PGD moves: where an ascent stands, its next iterate and its step size.

Croce and Hein 2020, arXiv:2003.01690, Algorithm 1.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from rrl_dist.attacks.balls import Ball, as_column
from rrl_dist.attacks.result import Best
from rrl_dist.attacks.trials import Samples

# Constants of the paper, §3.
MOMENTUM = 0.75  # alpha: share of the new step
RHO = 0.75  # steps that must rise for the step size to stay
FIRST_INTERVAL, SHORTENED_BY, SHORTEST = 0.22, 0.03, 0.06  # shares of all steps


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
    """Where each trial's ascent stands; all tensors have M rows.

    Attributes:
        center, y, target: clean image, label, and the class that is aimed at.
        x, x_old, grad: next iterate's origin, the iterate before, the gradient at x.
        value: value at the iterate visited last.
        top, top_grad, top_value: the iterate of highest value in this trial.
        checked: `top_value` at the last checkpoint.
        halved: whether the last checkpoint halved the step size.
        step_size: length of the next step, in [0, 1] pixels.
        rises: steps since the last checkpoint that rose.
        steps: steps taken; -1 before the first visit, which is of x itself.
        best, score, wrong, done, queries: see `trials.State`.
    """

    center: Tensor
    y: Tensor
    target: Tensor
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
    rises: Tensor
    steps: Tensor
    best: Tensor
    score: Tensor
    wrong: Tensor
    done: Tensor
    queries: Tensor

    @classmethod
    def begin(
        cls, samples: Samples, target: Tensor, x: Tensor, step_size: float
    ) -> "Climb":
        """Before the first visit, which is of x [M, ...]."""
        lowest = torch.full(x.shape[:1], -torch.inf, device=x.device)
        zero = torch.zeros_like(samples.y)
        no = torch.zeros_like(zero, dtype=torch.bool)
        return cls(
            center=samples.x,
            y=samples.y,
            target=target,
            x=x,
            x_old=x,
            grad=torch.zeros_like(x),
            value=lowest,
            top=x,
            top_grad=torch.zeros_like(x),
            top_value=lowest,
            checked=lowest,
            # The first checkpoint has no interval before it to compare with.
            halved=~no,
            step_size=torch.full_like(lowest, step_size),
            rises=zero,
            steps=zero - 1,
            best=samples.x,
            score=lowest,
            wrong=no,
            done=no,
            queries=zero,
        )

    def moved(self, ball: Ball, steps: int) -> Tensor:
        """The next iterate, eqs. 2 and 3 of the paper; x itself at the first visit."""
        step = as_column(self.step_size, self.x) * ball.steepest(self.grad)
        goal = ball.project(self.x + step, self.center)
        # The very first step has no predecessor to keep a share of.
        share = torch.where(self.steps == 0, 1.0, MOMENTUM).to(self.x.dtype)
        share = as_column(share, self.x)
        inertia = (1 - share) * (self.x - self.x_old)
        next_x = ball.project(self.x + share * (goal - self.x) + inertia, self.center)
        return torch.where(as_column(self.steps < 0, self.x), self.x, next_x)

    def after(
        self, x: Tensor, value: Tensor, grad: Tensor, ball: Ball, steps: int
    ) -> "Climb":
        """After a visit to x."""
        ends = torch.zeros(steps + 1, dtype=torch.int64, device=x.device)
        done = 0
        for length in intervals(steps):
            done += length
            ends[done] = length
        state = self.at(x, value, grad)
        state = state.checkpoint(ends[state.steps.clamp_max(steps)])
        return state._replace(done=state.steps >= steps)

    def at(self, x: Tensor, value: Tensor, grad: Tensor) -> "Climb":
        """Notes a visit to x."""
        first = self.steps < 0
        higher = first | (value > self.top_value)
        pick = as_column(higher, x)
        return self._replace(
            x=x,
            x_old=torch.where(as_column(first, x), x, self.x),
            grad=grad,
            value=value,
            top=torch.where(pick, x, self.top),
            top_grad=torch.where(pick, grad, self.top_grad),
            top_value=torch.where(higher, value, self.top_value),
            checked=torch.where(first, value, self.checked),
            rises=self.rises + (~first & (value > self.value)),
            steps=self.steps + 1,
        )

    def checkpoint(self, lengths: Tensor) -> "Climb":
        """Where an interval of `lengths` [M] > 0 has ended: if too few of its steps
        rose, or nothing new was reached at an unchanged step size, back to the top
        with half the step."""
        ends = lengths > 0
        stalled = self.rises <= RHO * lengths
        flat = ~self.halved & (self.checked >= self.top_value)
        halve = ends & (stalled | flat)
        pick = as_column(halve, self.x)
        return self._replace(
            x=torch.where(pick, self.top, self.x),
            grad=torch.where(pick, self.top_grad, self.grad),
            checked=torch.where(ends, self.top_value, self.checked),
            halved=torch.where(ends, halve, self.halved),
            step_size=torch.where(halve, self.step_size / 2, self.step_size),
            rises=torch.where(ends, 0, self.rises),
        )

    def offered(self, x: Tensor, score: Tensor, wrong: Tensor, steps: int) -> "Climb":
        """Keep the stronger image of `best` and x; to be told before `after`."""
        best, score, wrong = Best(self.best, self.score, self.wrong).offer(
            x, score, wrong
        )
        return self._replace(best=best, score=score, wrong=wrong)
