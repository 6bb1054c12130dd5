"""TRADES: cross-entropy on labels, and how far an attack moves the answer.

Zhang et al., Theoretically Principled Trade-off between Robustness and Accuracy, ICML
2019, arXiv:1901.08573. With p(x) the softmax of the logits:

    loss = CE(p(x), y) + weight * mean of max over B(x) of KL(p(x) || p(x'))

The weight is beta, or 1 / lambda, of the authors' code (yaodongyu/TRADES, trades.py),
which this follows: the attack starts at x plus Gaussian noise, since the gradient of
the divergence is zero at x itself; in the loss neither argument of the divergence is
detached; x and x' pass the network apart, so that batch norm sees each alone. Unlike
it, x passes once and not twice, so batch norm's statistics count it once; the attack
sees batch norm in eval mode, computes p(x) once, not at each step, and its start is
clipped to [0, 1].

With `train_encoder: false` only the linear head learns, on a frozen encoder: the
adversarial linear protocol (ALF) of DeACL's evaluation.
"""

import math

import torch
from torch import Tensor, nn

from rrl_dist.attacks.ascent import ascend, check_attack
from rrl_dist.attacks.balls import Ball
from rrl_dist.core.batch import Batch
from rrl_dist.core.collectives import all_mean
from rrl_dist.core.errors import UserError
from rrl_dist.core.modes import evaluating, frozen
from rrl_dist.core.randomness import normal
from rrl_dist.objectives.labelled import (
    HeadMaker,
    Labelled,
    accuracy,
    mean_cross_entropy,
)
from rrl_dist.objectives.objective import report
from rrl_dist.objectives.ramp import check_weight
from rrl_dist.objectives.terms import divergence


class TRADES(Labelled):
    """Cross-entropy and divergence of a linear head on one view.

    Args:
        encoder, num_classes, train_encoder, freeze_batch_norm, head: as `Labelled`'s.
        weight: of the divergence, >= 0.
        ball: threat model, in [0, 1] pixels.
        steps: of the inner PGD.
        relative_step: step size of the inner PGD as a share of the ball's radius.
        start_std: standard deviation of the noise that the attack starts with, > 0,
            in [0, 1] pixels.
        seed: of that noise.

    Raises:
        UserError: a negative weight, an attack that would not attack, or no noise.
    """

    def __init__(
        self,
        *,
        encoder: nn.Module,
        num_classes: int,
        train_encoder: bool,
        freeze_batch_norm: bool,
        head: HeadMaker,
        weight: float,
        ball: Ball,
        steps: int,
        relative_step: float,
        start_std: float,
        seed: int,
    ) -> None:
        super().__init__(
            encoder=encoder,
            num_classes=num_classes,
            train_encoder=train_encoder,
            freeze_batch_norm=freeze_batch_norm,
            head=head,
        )
        check_weight(weight)
        check_attack(steps=steps, relative_step=relative_step)
        if not start_std > 0:
            raise UserError(
                f"objective.start_std={start_std}: at the image itself the attack has "
                "no gradient; set more than 0"
            )
        self.weight, self.ball = weight, ball
        self.steps, self.seed = steps, seed
        self.step_size = relative_step * ball.eps
        self.start_std = start_std

    def inner(self, batch: Batch) -> Batch:
        x = batch.views[0]
        with evaluating(self), frozen(self):
            with torch.no_grad():
                logits = self.attacked_logits(x)
            x_adv = ascend(
                lambda moved: divergence(logits, self.attacked_logits(moved)),
                self._start(x, batch),
                x,
                ball=self.ball,
                steps=self.steps,
                step_size=self.step_size,
            )
        return batch.with_extras(trades_x=x_adv)

    def _start(self, x: Tensor, batch: Batch) -> Tensor:
        """x with Gaussian noise, in the ball and in [0, 1]."""
        pixels = math.prod(x.shape[1:])
        key = ("trades", batch.step)
        noise = normal(self.seed, *key, index=batch.index, n=pixels)
        moved = x + self.start_std * noise.reshape(x.shape).to(x.dtype)
        return self.ball.project(moved, x)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        logits = self.logits(batch.views[0])
        moved = self.logits(batch.extras["trades_x"])
        natural = mean_cross_entropy(logits, batch.labels)
        apart = all_mean(divergence(logits, moved).mean())
        terms = {
            "cross_entropy": natural,
            "divergence": apart,
            "accuracy": accuracy(logits, batch.labels),
            "adversarial_accuracy": accuracy(moved, batch.labels),
        }
        return report(natural + self.weight * apart, terms)
