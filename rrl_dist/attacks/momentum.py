"""MI-FGSM: gradient ascent with momentum, for images that are to fool other models.

Dong et al. 2018, arXiv:1710.06081, Algorithm 1: momentum adds up gradients of equal
length, so that a step follows what the way has in common and not the last gradient.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rrl_dist.attacks.ascent import value_and_gradient
from rrl_dist.attacks.balls import Ball, as_column
from rrl_dist.attacks.batch_attack import attack_in_batches, check_step
from rrl_dist.attacks.checks import check_counts
from rrl_dist.attacks.classifier import Classifier
from rrl_dist.attacks.margins import cross_entropy, misclassified
from rrl_dist.attacks.passes import Passes
from rrl_dist.attacks.result import Attacked, Best
from rrl_dist.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class MIFGSM:
    """Momentum iterative fast gradient sign method on the cross-entropy.

    Takes all steps, whatever it finds on the way, and also of images that are wrong
    from the start: an image just over the border of one model does not fool another.
    Keeps, of the clean image and all iterates, a wrong one before a right one, then
    the one with the higher cross-entropy; the paper keeps the last.

    Attributes:
        ball: the threat model; in L2 the step is the paper's for that norm.
        steps: gradient steps.
        relative_step: length of a step as a share of the radius.
        decay: share of the momentum that is left at the next step, >= 0; with 0 it is
            projected gradient ascent.
        random_start: start at a uniform draw from the ball, or at the clean image.
        seed: draws depend on (seed, name, sample).
        micro_batch: images of every call of the model.

    Raises:
        UserError: if a number is out of range.
    """

    ball: Ball
    steps: int
    relative_step: float
    decay: float
    random_start: bool
    seed: int
    micro_batch: int

    def __post_init__(self) -> None:
        check_counts(steps=self.steps, micro_batch=self.micro_batch)
        check_step("mi-fgsm", self.relative_step)
        if not 0 <= self.decay < torch.inf:
            raise UserError(f"mi-fgsm has decay={self.decay}; set it >= 0, as 1.0")

    @property
    def name(self) -> str:
        """Such as "mi-fgsm10"."""
        return f"mi-fgsm{self.steps}"

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, index: Tensor | None = None
    ) -> Tensor:
        """As `run`, the images alone."""
        return self.run(model, x, y, index).x_adv

    def run(
        self, model: nn.Module, x: Tensor, y: Tensor, index: Tensor | None = None
    ) -> Attacked:
        """See `rrl_dist.attacks.result.Attack.run`."""
        return attack_in_batches(self, model, (x, y, index), self._attack)

    def cost(self, classes: int) -> Passes:
        """See `rrl_dist.attacks.passes.Costed`."""
        return Passes(2 + self.steps, self.steps)

    def _attack(
        self, classifier: Classifier, clean: Tensor, y: Tensor, index: Tensor
    ) -> tuple[Tensor]:
        """One micro-batch."""
        logits = classifier.clean(clean, y)
        best = Best.of(clean, cross_entropy(logits, y), misclassified(logits, y))

        def value(x: Tensor) -> Tensor:
            nonlocal best
            logits = classifier(x)
            loss = cross_entropy(logits, y)
            best = best.offer(x.detach(), loss.detach(), misclassified(logits, y))
            return loss

        x, momentum = self._start(clean, index), torch.zeros_like(clean)
        step_size = self.relative_step * self.ball.eps
        for _ in range(self.steps):
            _, grad = value_and_gradient(value, x)
            momentum = self.decay * momentum + of_length_one(grad)
            x = self.ball.project(x + step_size * self.ball.steepest(momentum), clean)
        value(x)
        return (best.x,)

    def _start(self, x: Tensor, index: Tensor) -> Tensor:
        if not self.random_start:
            return x
        return self.ball.start(x, seed=self.seed, key=(self.name,), index=index)


def of_length_one(grad: Tensor) -> Tensor:
    """[N, ...] gradients, each over the sum of its magnitudes, as in eq. 6.

    Zero where it is zero; NaN counts as zero. A gradient may be as small as float32 can
    tell, or as large: it is first divided by its largest element.
    """
    grad = torch.nan_to_num(grad, nan=0.0)
    tiny = torch.finfo(grad.dtype).tiny
    largest = grad.abs().flatten(1).amax(1).clamp_min(tiny)
    scaled = grad / as_column(largest, grad)
    return scaled / as_column(scaled.abs().flatten(1).sum(1).clamp_min(tiny), grad)
