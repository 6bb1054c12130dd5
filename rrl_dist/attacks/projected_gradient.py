"""PGD: projected gradient ascent on the cross-entropy, with restarts.

Madry et al. 2018, arXiv:1706.06083.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from rrl_dist.attacks.ascent import ascend
from rrl_dist.attacks.balls import Ball
from rrl_dist.attacks.batch_attack import attack_in_batches, check_step
from rrl_dist.attacks.checks import check_counts
from rrl_dist.attacks.classifier import Classifier
from rrl_dist.attacks.margins import cross_entropy, misclassified
from rrl_dist.attacks.passes import Passes
from rrl_dist.attacks.result import Attacked, Best
from rrl_dist.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class PGD:
    """Projected gradient descent on the negative cross-entropy, as it is known.

    Keeps, of the clean image and all iterates of all restarts, a wrong one before a
    right one, then the one with the higher cross-entropy.

    So an image that the model gets wrong stays wrong, and the cross-entropy falls
    below that of the clean image only where the answer turns from right to wrong
    (which takes three classes).

    Attributes:
        ball: the threat model.
        steps: gradient steps of a restart.
        relative_step: length of a step as a share of the radius.
        restarts: runs per sample.
        random_start: start at a uniform draw from the ball, or at the clean image.
        seed: draws depend on (seed, name, restart, sample).
        micro_batch: images of every call of the model.

    Raises:
        UserError: if a number is out of range.
    """

    ball: Ball
    steps: int
    relative_step: float
    restarts: int
    random_start: bool
    seed: int
    micro_batch: int

    def __post_init__(self) -> None:
        check_counts(
            steps=self.steps, restarts=self.restarts, micro_batch=self.micro_batch
        )
        check_step("pgd", self.relative_step)
        if self.restarts > 1 and not self.random_start:
            raise UserError(
                f"pgd has {self.restarts} restarts that all start at the clean image; "
                "set random_start=true or restarts=1"
            )

    @property
    def name(self) -> str:
        """Such as "pgd20"."""
        return f"pgd{self.steps}"

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
        forward = 1 + self.restarts * (self.steps + 1)
        return Passes(forward, self.restarts * self.steps)

    def _attack(
        self, classifier: Classifier, x: Tensor, y: Tensor, index: Tensor
    ) -> tuple[Tensor]:
        """One micro-batch, all restarts."""
        logits = classifier.clean(x, y)
        best = Best.of(x, cross_entropy(logits, y), misclassified(logits, y))

        def value(x: Tensor) -> Tensor:
            nonlocal best
            logits = classifier(x)
            loss = cross_entropy(logits, y)
            best = best.offer(x.detach(), loss.detach(), misclassified(logits, y))
            return loss

        step_size = self.relative_step * self.ball.eps
        for restart in range(self.restarts):
            start = self._start(x, index, restart)
            last = ascend(
                value, start, x, ball=self.ball, steps=self.steps, step_size=step_size
            )
            value(last)
        return (best.x,)

    def _start(self, x: Tensor, index: Tensor, restart: int) -> Tensor:
        if not self.random_start:
            return x
        key = (self.name, restart)
        return self.ball.start(x, seed=self.seed, key=key, index=index)
