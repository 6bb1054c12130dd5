"""TangentAttack: the nearest wrong image, found by asking for answers alone.

Ma, Guo, Chen, Yong, Wang 2021 (NeurIPS), hemisphere form. From a wrong image the way
to the clean one is halved down to the decision boundary; answers to random directions
there give its normal; the tangent point of a ball around the boundary point is the next
wrong image. Normal, radii and numbers of directions are HopSkipJump's (Chen, Jordan,
Wainwright 2020, arXiv:1904.02144, Algorithm 2).

Ours are that images are clipped before the model is asked about them, since one that is
clipped afterwards may be right again; starts that are more than noise of pixels; that a
radius never puts the tangent point before the boundary; that a normal which leads
nowhere is estimated anew; and that the last query is for a slightly farther image, so
that what is given back is not on the very boundary.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rrl_dist.attacks.balls import Ball, as_column
from rrl_dist.attacks.border import (
    HALVE,
    LAST,
    PROBE,
    START,
    TOUCH,
    Border,
    length,
)
from rrl_dist.attacks.checks import check_counts
from rrl_dist.attacks.classifier import Classifier
from rrl_dist.attacks.decisions import (
    attack_by_decisions,
    check_decisions,
    farther,
)
from rrl_dist.attacks.draws import row_normals
from rrl_dist.attacks.margins import misclassified
from rrl_dist.attacks.passes import Passes
from rrl_dist.attacks.result import Attacked
from rrl_dist.attacks.starts import start_images
from rrl_dist.attacks.trials import Packing, Samples
from rrl_dist.core.errors import UserError

FIRST_SIZE = 0.1  # of the first directions, in [0, 1] pixels: HopSkipJump's code
# Share of the distance below which no radius is tried: the normal is wrong.
LEAST_RADIUS = 2.0**-10


@dataclass(frozen=True, kw_only=True)
class TangentAttack:
    """Minimizes the Euclidean distance of a wrong image, by the model's answers alone.

    An image that is wrong from the start is its own nearest and not touched. One for
    which nothing wrong is found within the ball is given back as it was.

    Attributes:
        ball: `L2`, with the largest distance that counts.
        queries: forward passes of a sample that is right, the clean image's included:
            all of them are made, 2 or more.
        directions: tried for the first normal; the t-th has sqrt(t) times as many.
        tolerance: the way to the boundary is halved down to `tolerance` / D^1.5 of
            itself for D numbers in an image, and directions are as long as `tolerance`
            / D of the distance; HopSkipJump's gamma, > 0.
        seed: draws depend on (seed, name, sample, query).
        micro_batch: images of every call of the model.

    Raises:
        UserError: if a number is out of range, or the ball is of another norm.
    """

    ball: Ball
    queries: int
    directions: int
    tolerance: float
    seed: int
    micro_batch: int

    def __post_init__(self) -> None:
        check_decisions(self.name, self.ball, self.queries, self.micro_batch)
        check_counts(directions=self.directions)
        if not 0 < self.tolerance < math.inf:
            raise UserError(f"tangent has tolerance={self.tolerance}; set it above 0")

    @property
    def name(self) -> str:
        """Such as "tangent5000"."""
        return f"tangent{self.queries}"

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, index: Tensor | None = None
    ) -> Tensor:
        """As `run`, the images alone."""
        return self.run(model, x, y, index).x_adv

    def run(
        self, model: nn.Module, x: Tensor, y: Tensor, index: Tensor | None = None
    ) -> Attacked:
        """See `rrl_dist.attacks.result.Attack.run`."""
        packing = Packing(self.micro_batch)
        return attack_by_decisions(self, model, (x, y, index), packing)

    def trials(self, classes: int) -> int:
        """Of each sample: one, whatever the number of classes."""
        return 1

    def cost(self, classes: int) -> Passes:
        """See `rrl_dist.attacks.passes.Costed`."""
        return Passes(self.queries, 0)

    def begin(self, samples: Samples, number: Tensor) -> Border:
        """See `trials.Method`."""
        first = torch.zeros_like(number)
        visit = start_images(samples.x, first, seed=self.seed, index=samples.ids)
        return Border.begin(samples, visit)

    def step(self, classifier: Classifier, state: Border) -> Border:
        """See `trials.Method`: one answer for each row."""
        wrong = misclassified(classifier(state.visit), state.y)
        queries = state.queries + ~state.done
        state = self._heard(state, wrong)._replace(queries=queries)
        state = self._ended(state)
        return state._replace(visit=self._next(state))

    def _heard(self, state: Border, wrong: Tensor) -> Border:
        """After the answers to `visit`, and so at other acts perhaps."""
        start, halve, probe, touch, last = (
            state.doing(act) for act in (START, HALVE, PROBE, TOUCH, LAST)
        )
        # The last one is farther: it takes the place of the nearest.
        state = state.keep_nearest(wrong & ~last)
        state = state.set(last & wrong, best=state.visit)
        state = self._halved(state, halve, wrong)
        state = self._probed(state, probe, wrong)
        state = state.halve((start | touch) & wrong, state.visit)
        return self._shrunk(state, touch & ~wrong)

    def _halved(self, state: Border, rows: Tensor, wrong: Tensor) -> Border:
        middle = (state.low + state.high) / 2
        state = state.set(rows & wrong, high=middle).set(rows & ~wrong, low=middle)
        near = state.high - state.low <= self._share(state)
        return state.probe(rows & near, state.between(state.high))

    def _probed(self, state: Border, rows: Tensor, wrong: Tensor) -> Border:
        state = state.count_direction(rows, wrong, self._size(state))
        # As integers: another device may round a root otherwise.
        wanted = self.directions**2 * state.turn
        return state.touch(rows & ((state.made + 1).square() > wanted))

    def _shrunk(self, state: Border, rows: Tensor) -> Border:
        """A tangent point was right."""
        state = state.set(rows, radius=state.radius / 2)
        least = LEAST_RADIUS * length(state.point - state.center)
        return state.probe(rows & (state.radius <= least), state.point)

    def _ended(self, state: Border) -> Border:
        """Whose last query is next, and who is done."""
        left = self.queries - 1 - state.queries  # without the clean image's
        found = state.distance.isfinite()
        last = torch.full_like(state.act, LAST)
        state = state.set((left == 1) & found & ~state.done, act=last)
        done = left <= 0
        # The last query was right, or would take the image out of the ball.
        best = length(state.best - state.center)
        kept = (best > 0) & (best <= self.ball.eps)
        state = state.set(done & ~kept, best=state.nearest)
        wrong = done & found & (kept | (state.distance <= self.ball.eps))
        return state.set(done & ~wrong, best=state.center)._replace(
            done=done, wrong=wrong
        )

    def _next(self, state: Border) -> Tensor:
        """What each row asks about next."""
        visit = state.between((state.low + state.high) / 2)
        # Only what some row needs: directions are dear.
        for act, images in (
            (START, self._start),
            (PROBE, self._direction),
            (TOUCH, Border.tangent),
            (LAST, _farther),
        ):
            rows = state.doing(act)
            if bool(rows.any()):
                visit = torch.where(as_column(rows, visit), images(state), visit)
        return visit

    def _start(self, state: Border) -> Tensor:
        ids, attempt = state.ids, state.queries
        return start_images(state.center, attempt, seed=self.seed, index=ids)

    def _direction(self, state: Border) -> Tensor:
        """A little off the boundary point, in a random direction."""
        draws = row_normals(
            self.seed,
            self.name,
            "direction",
            state.ids,
            state.queries,
            state.point[0].numel(),
        )
        draws = draws.reshape(state.point.shape).to(state.point.dtype)
        scale = as_column(self._size(state) / length(draws), draws)
        return (state.point + scale * draws).clamp(0, 1)

    def _share(self, state: Border) -> float:
        """Of the way to a wrong image, within which its boundary point is told."""
        return self.tolerance / math.pow(state.center[0].numel(), 1.5)

    def _size(self, state: Border) -> Tensor:
        """[M] length of directions at the boundary point."""
        share = math.sqrt(state.center[0].numel()) * self._share(state)
        later = share * length(state.point - state.center)
        return torch.where(state.turn <= 1, FIRST_SIZE, later)


def _farther(state: Border) -> Tensor:
    return farther(state.center, state.nearest)
