"""PGD-AT: cross-entropy on labels, at the images that an attack makes worst.

Madry et al., Towards Deep Learning Models Resistant to Adversarial Attacks, ICLR 2018,
arXiv:1706.06083, eq. 2.1, the maximum found by projected gradient ascent from a random
start:

    min over theta of the mean of max over B(x) of CE(theta, x', y)

As in the authors' code (MadryLab/cifar10_challenge), only the attacked images are
trained on. Unlike it, the attack sees batch norm in eval mode and moves no statistics:
theirs runs on the network in train mode.

With `train_encoder: false` only the linear head learns, on a frozen encoder: the
adversarial linear protocol (ALF) of the RobustSSL benchmark.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from rrl_dist.attacks.ascent import ascend, check_attack
from rrl_dist.attacks.balls import Ball
from rrl_dist.core.batch import Batch
from rrl_dist.core.modes import evaluating, frozen
from rrl_dist.objectives.labelled import (
    HeadMaker,
    Labelled,
    accuracy,
    mean_cross_entropy,
)
from rrl_dist.objectives.objective import report


class PGDAT(Labelled):
    """Mean cross-entropy of a linear head on attacked images of one view.

    Args:
        encoder, num_classes, train_encoder, freeze_batch_norm, head: as `Labelled`'s.
        ball: threat model, in [0, 1] pixels.
        steps: of the inner PGD.
        relative_step: step size of the inner PGD as a share of the ball's radius.
        seed: of the random starts.

    Raises:
        UserError: an attack that would not attack.
    """

    def __init__(
        self,
        *,
        encoder: nn.Module,
        num_classes: int,
        train_encoder: bool,
        freeze_batch_norm: bool,
        head: HeadMaker,
        ball: Ball,
        steps: int,
        relative_step: float,
        seed: int,
    ) -> None:
        super().__init__(
            encoder=encoder,
            num_classes=num_classes,
            train_encoder=train_encoder,
            freeze_batch_norm=freeze_batch_norm,
            head=head,
        )
        check_attack(steps=steps, relative_step=relative_step)
        self.ball, self.steps, self.seed = ball, steps, seed
        self.step_size = relative_step * ball.eps

    def inner(self, batch: Batch) -> Batch:
        x, labels = batch.views[0], batch.labels
        key = ("pgd_at", batch.step)
        start = self.ball.start(x, seed=self.seed, key=key, index=batch.index)
        with evaluating(self), frozen(self):
            x_adv = ascend(
                lambda moved: F.cross_entropy(
                    self.attacked_logits(moved), labels, reduction="none"
                ),
                start,
                x,
                ball=self.ball,
                steps=self.steps,
                step_size=self.step_size,
            )
        return batch.with_extras(pgd_at_x=x_adv)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        logits = self.logits(batch.extras["pgd_at_x"])
        loss = mean_cross_entropy(logits, batch.labels)
        return report(loss, {"adversarial_accuracy": accuracy(logits, batch.labels)})
