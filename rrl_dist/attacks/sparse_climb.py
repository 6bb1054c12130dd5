"""How Auto-PGD moves in an L1 ball: few pixels a step, and wider balls first.

Croce and Hein 2021, arXiv:2103.01208, section 3 and Algorithm 1, with the constants and
the schedule of radii that AutoAttack has (fra31/auto-attack). A step in L1 that is as
long as it may be moves one pixel; how many move here follows how many the strongest
image so far has changed.
"""

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from rrl_dist.attacks.balls import Ball, as_column
from rrl_dist.attacks.l1 import project
from rrl_dist.attacks.result import Best
from rrl_dist.attacks.trials import Samples

# Radii that are climbed in one after another, over the ball's, and tenths of all steps
# that the first of them get.
RADII, TENTHS = (3, 2, 1), (3, 3)
FEWER = 1.5  # pixels that the strongest image has changed, over those of a step
FALLEN = 0.95  # share of changed pixels below which they count as having become fewer
SHORTER, SHORTEST = 1.5, 10.0  # divisors of a step that stays, and of the first at most
CHECKED = 0.04  # share of a radius' steps between checkpoints


@cache
def timetable(steps: int) -> Tensor:
    """What each visit of a trial is: [V, 4] int64 with radius (over the ball's), the
    steps taken within it, steps between its checkpoints, and whether it is its last."""
    counts = [share * steps // 10 for share in TENTHS]
    counts.append(steps - sum(counts))
    rows = [
        (radius, step, max(int(CHECKED * count), 1), step == count)
        for radius, count in zip(RADII, counts, strict=True)
        if count > 0
        for step in range(count + 1)
    ]
    return torch.tensor(rows, dtype=torch.int64)


class SparseClimb(NamedTuple):
    """Where each trial's ascent stands; all tensors have M rows.

    Attributes:
        center, y, target: clean image, label, and the class that is aimed at.
        x, grad: next iterate's origin, and the gradient there.
        top, top_grad, top_value: the iterate of highest value within this radius.
        changed: pixels that `top` had changed at the last checkpoint.
        share: of all pixels, those that the next step moves.
        step_size: length of the next step, in [0, 1] pixels.
        visits: those made; the first within a radius is of x itself.
        best, score, wrong, done, queries: see `trials.State`; only images within the
            ball's own radius count.
    """

    center: Tensor
    y: Tensor
    target: Tensor
    x: Tensor
    grad: Tensor
    top: Tensor
    top_grad: Tensor
    top_value: Tensor
    changed: Tensor
    share: Tensor
    step_size: Tensor
    visits: Tensor
    best: Tensor
    score: Tensor
    wrong: Tensor
    done: Tensor
    queries: Tensor

    @classmethod
    def begin(cls, samples: Samples, target: Tensor, x: Tensor) -> "SparseClimb":
        """Before the first visit, which is of the point next to x [M, ...]."""
        lowest = torch.full(x.shape[:1], -torch.inf, device=x.device)
        nothing, none = torch.zeros_like(lowest), torch.zeros_like(samples.y)
        return cls(
            center=samples.x,
            y=samples.y,
            target=target,
            x=x,
            grad=torch.zeros_like(x),
            top=x,
            top_grad=torch.zeros_like(x),
            top_value=lowest,
            changed=nothing,
            share=nothing,
            step_size=nothing,
            visits=none,
            best=samples.x,
            score=lowest,
            wrong=none.bool(),
            done=none.bool(),
            queries=none,
        )

    def moved(self, ball: Ball, steps: int) -> Tensor:
        """The next iterate."""
        radius, step, _, _ = self._now(steps)
        stay = as_column(step == 0, self.x)
        goal = torch.where(stay, self.x, self.x + self._step())
        return project(goal, self.center, ball.eps * radius.double())

    def _now(self, steps: int) -> tuple[Tensor, ...]:
        """[M] each: see `timetable`."""
        table = timetable(steps).to(self.visits.device)
        return table[self.visits.clamp_max(len(table) - 1)].unbind(1)

    def _step(self) -> Tensor:
        """Of length `step_size`, in equal parts over the pixels of largest gradient."""
        grad = self.grad.nan_to_num(nan=0.0).flatten(1)
        size, pixels = grad.abs(), grad.shape[1]
        rank = ((1 - self.share) * pixels).long().clamp(0, pixels - 1)
        least = size.sort(1).values.gather(1, rank[:, None])
        signs = grad.sign() * (size >= least)
        parts = signs.abs().sum(1, keepdim=True).clamp_min(1)
        return (self.step_size[:, None] * signs / parts).reshape(self.x.shape)

    def after(
        self, x: Tensor, value: Tensor, grad: Tensor, ball: Ball, steps: int
    ) -> "SparseClimb":
        """After a visit to x."""
        radius, step, every, last = self._now(steps)
        first = step == 0
        higher = first | (value > self.top_value)
        pick = as_column(higher, x)
        state = self._replace(
            x=x,
            grad=grad,
            top=torch.where(pick, x, self.top),
            top_grad=torch.where(pick, grad, self.top_grad),
            top_value=torch.where(higher, value, self.top_value),
            visits=self.visits + 1,
        )
        state = state._checkpoint(first, step % every == 0, ball.eps * radius)
        # The next radius is begun from the strongest image of this one.
        x = torch.where(as_column(last > 0, x), state.top, state.x)
        return state._replace(x=x, done=state.visits >= len(timetable(steps)))

    def _checkpoint(self, first: Tensor, due: Tensor, eps: Tensor) -> "SparseClimb":
        """Where it is due: fewer changed pixels let steps begin anew from the top, and
        otherwise they get shorter. The first visit within a radius sets all."""
        changed = (self.top != self.center).flatten(1).sum(1).to(eps.dtype)
        fewer = ~first & due & (changed < FALLEN * self.changed)
        length = torch.where(fewer, eps, self.step_size / SHORTER)
        length = torch.maximum(torch.minimum(length, eps), eps / SHORTEST)
        length = torch.where(due, length, self.step_size)
        share = changed / (self.center[0].numel() * FEWER)
        pick = as_column(fewer, self.x)
        return self._replace(
            x=torch.where(pick, self.top, self.x),
            grad=torch.where(pick, self.top_grad, self.grad),
            changed=torch.where(due, changed, self.changed),
            share=torch.where(due, share, self.share),
            step_size=torch.where(first, eps, length),
        )

    def offered(
        self, x: Tensor, score: Tensor, wrong: Tensor, steps: int
    ) -> "SparseClimb":
        """Keep the stronger image of `best` and x; to be told before `after`."""
        inside = self._now(steps)[0] == 1
        score = torch.where(inside, score, -torch.inf)
        kept = Best(self.best, self.score, self.wrong)
        best, score, wrong = kept.offer(x, score, wrong & inside)
        return self._replace(best=best, score=score, wrong=wrong)
