"""The nearest adversarial image: gradient steps whose radius follows each image.

Decoupled direction and norm, Rony et al. 2019, arXiv:1811.09600, Algorithm 1: where the
model is wrong the next image is nearer, where it is right it is further off. Found
distances are upper bounds of the distance to the decision boundary. Ours are that the
margin of logits is raised instead of the cross-entropy, whose gradient is 0 in float32
where a model is sure, so that it would look robust; the random start, for models that
are flat at the clean image; the largest radius; and that a radius shrinks from where
the clipped image lies.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rrl_dist.attacks.ascent import value_and_gradient
from rrl_dist.attacks.balls import Ball, as_column
from rrl_dist.attacks.batch_attack import attack_in_batches
from rrl_dist.attacks.checks import check_counts
from rrl_dist.attacks.classifier import Classifier
from rrl_dist.attacks.margins import logit_margin, misclassified
from rrl_dist.attacks.passes import Passes
from rrl_dist.attacks.result import Attacked
from rrl_dist.core.errors import UserError

LAST_STEP = 0.01  # length of the last step over that of the first, the paper's §4


class Nearest(NamedTuple):
    """Per sample the nearest wrong image so far; before there is one, the image of
    largest margin.

    Attributes:
        x: [N, ...] images.
        distance: [N] in the ball's norm, in [0, 1] pixels.
        margin: [N] of logits, largest other minus the label's; -inf instead of NaN.
        wrong: [N] bool, whether the model is wrong at x.
    """

    x: Tensor
    distance: Tensor
    margin: Tensor
    wrong: Tensor

    def offer(self, other: "Nearest") -> "Nearest":
        """Row by row: a wrong image before a right one, then the nearer of two wrong
        ones, or of two right ones that of larger margin."""
        nearer = self.wrong & (other.distance < self.distance)
        stronger = ~self.wrong & (other.margin > self.margin)
        both_alike = other.wrong == self.wrong
        better = (other.wrong & ~self.wrong) | (both_alike & (nearer | stronger))
        columns = zip(other, self, strict=True)
        return Nearest(
            *(torch.where(as_column(better, new), new, old) for new, old in columns)
        )


@dataclass(frozen=True, kw_only=True)
class Search:
    """Looks for the nearest image that the model gets wrong, sample by sample.

    An image that is wrong from the start is its own nearest, at distance 0. One that is
    never broken within the ball is given back right: that of largest margin.

    Attributes:
        ball: the norm, and the largest radius.
        steps: gradient steps.
        relative_start: the first radius, and the length of the first step, as a share
            of the largest radius, in (0, 1].
        change: share by which a radius shrinks or grows at each step, in (0, 1).
        seed: draws depend on (seed, name, sample).
        micro_batch: images of every call of the model.

    Raises:
        UserError: if a number is out of range.
    """

    ball: Ball
    steps: int
    relative_start: float
    change: float
    seed: int
    micro_batch: int

    def __post_init__(self) -> None:
        check_counts(steps=self.steps, micro_batch=self.micro_batch)
        if not 0 < self.relative_start <= 1:
            raise UserError(
                f"search has relative_start={self.relative_start}; set it in (0, 1]"
            )
        if not 0 < self.change < 1:
            raise UserError(f"search has change={self.change}; set it in (0, 1)")

    @property
    def name(self) -> str:
        """Such as "search100"."""
        return f"search{self.steps}"

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, index: Tensor | None = None
    ) -> Tensor:
        """As `run`, the images alone."""
        return self.run(model, x, y, index).x_adv

    def run(
        self, model: nn.Module, x: Tensor, y: Tensor, index: Tensor | None = None
    ) -> Attacked:
        """See `rrl_dist.attacks.result.Attack.run`."""
        return attack_in_batches(self, model, (x, y, index), self._search)

    def cost(self, classes: int) -> Passes:
        """See `rrl_dist.attacks.passes.Costed`."""
        return Passes(2 + self.steps, self.steps)

    def _search(
        self, classifier: Classifier, x: Tensor, y: Tensor, index: Tensor
    ) -> tuple[Tensor]:
        """One micro-batch."""
        best = self._seen(x, x, y, classifier.clean(x, y))
        first = self.relative_start * self.ball.eps
        radius = torch.full_like(best.distance, first)
        moved = self.ball.with_eps(first).start(
            x, seed=self.seed, key=(self.name,), index=index
        )
        for step in range(self.steps):
            here, grad = self._visit(classifier, moved, x, y)
            best = best.offer(here)
            radius = torch.where(
                here.wrong,
                here.distance * (1 - self.change),
                radius * (1 + self.change),
            ).clamp_max(self.ball.eps)
            length = first * _annealed(step / self.steps)
            moved = self._onto(moved + length * self.ball.steepest(grad), x, radius)
        return (best.offer(self._seen(moved, x, y, classifier(moved))).x,)

    def _visit(
        self, classifier: Classifier, moved: Tensor, x: Tensor, y: Tensor
    ) -> tuple[Nearest, Tensor]:
        """What is found at `moved`, and the margin's gradient there."""
        logits: Tensor | None = None

        def value(moved: Tensor) -> Tensor:
            nonlocal logits
            logits = classifier(moved)
            return logit_margin(logits, y)

        _, grad = value_and_gradient(value, moved)
        assert logits is not None
        return self._seen(moved, x, y, logits.detach()), grad

    def _seen(self, moved: Tensor, x: Tensor, y: Tensor, logits: Tensor) -> Nearest:
        margin = logit_margin(logits, y).nan_to_num(nan=-torch.inf)
        distance = self.ball.distance(moved, x)
        return Nearest(moved, distance, margin, misclassified(logits, y))

    def _onto(self, moved: Tensor, x: Tensor, radius: Tensor) -> Tensor:
        """Towards x or away from it until the radius is met, and into [0, 1]."""
        distance = self.ball.distance(moved, x)
        tiny = torch.finfo(distance.dtype).tiny
        share = radius / distance.clamp_min(tiny)
        return self.ball.project(x + as_column(share, x) * (moved - x), x)


def _annealed(done: float) -> float:
    """From 1 at the beginning to `LAST_STEP` at the end, along half a cosine."""
    return LAST_STEP + (1 - LAST_STEP) * (1 + math.cos(math.pi * done)) / 2
