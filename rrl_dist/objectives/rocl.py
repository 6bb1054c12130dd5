"""RoCL: SimCLR over three views, of which one is attacked.

Kim, Tack and Hwang, Adversarial Self-Supervised Contrastive Learning, NeurIPS 2020,
arXiv:2006.07589, as in the authors' released code (Kim-Minseon/RoCL, src/). With NTX
SimCLR's loss, in which each anchor has a term for each of its partners:

    a'   = argmax over B(a) of NTX(a', b)     (PGD, network in eval mode)
    loss = NTX(a, b, a') + weight NTX(a', b)

Unlike in that code gradients flow into both sides of every similarity. It stops them on
the keys' side; the similarities are symmetric but their softmax is not, so that this
turns the gradient and not only halves it. The second term is of the same pass as the
first, where that code has one of its own, and both are over the global batch, where its
second term and its attack are over a worker's own.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrl_dist.attacks.ascent import ascend, check_attack
from rrl_dist.attacks.balls import Ball
from rrl_dist.core.batch import Batch
from rrl_dist.core.collectives import all_mean
from rrl_dist.core.modes import evaluating, frozen
from rrl_dist.objectives.objective import Objective, report, width_of
from rrl_dist.objectives.ramp import check_weight
from rrl_dist.objectives.simclr import nt_xent
from rrl_dist.objectives.terms import check_temperature


class RoCL(Objective):
    """NT-Xent over two views and an attacked first one.

    Args:
        encoder: trained.
        projector: builds the head from the number of features.
        temperature: of the softmax, > 0.
        weight: of the term of the attacked view and the second alone, >= 0.
        ball: threat model, in [0, 1] pixels.
        steps: of the inner ascent.
        relative_step: step size of the inner ascent as a share of the ball's radius.
        seed: of the random starts.

    Raises:
        UserError: a value is out of its range.
    """

    def __init__(
        self,
        *,
        encoder: nn.Module,
        projector: Callable[[int], nn.Module],
        temperature: float,
        weight: float,
        ball: Ball,
        steps: int,
        relative_step: float,
        seed: int,
    ) -> None:
        super().__init__()
        check_temperature(temperature)
        check_weight(weight)
        check_attack(steps=steps, relative_step=relative_step)
        self.encoder = encoder
        self.projector = projector(width_of(encoder, "num_features"))
        self.temperature, self.weight = temperature, weight
        self.ball, self.steps, self.seed = ball, steps, seed
        self.step_size = relative_step * ball.eps

    def inner(self, batch: Batch) -> Batch:
        a, b = batch.views
        key = ("rocl", batch.step)
        start = self.ball.start(a, seed=self.seed, key=key, index=batch.index)
        with evaluating(self), frozen(self):
            with torch.no_grad():
                zb = self._project(b)
            # A mean's gradient to one image would vanish in half precision.
            worst = ascend(
                lambda x: len(x) * self._pair(self._project(x), zb),
                start,
                a,
                ball=self.ball,
                steps=self.steps,
                step_size=self.step_size,
            )
        return batch.with_extras(rocl_worst=worst)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        # One pass for all: batch norm sees 3N images, as in the authors' code.
        views = torch.cat([*batch.views, batch.extras["rocl_worst"]])
        za, zb, worst = self._project(views).chunk(3)
        contrast = nt_xent(za, zb, worst, temperature=self.temperature)
        pair = self._pair(worst, zb)
        terms = {
            "contrastive_loss": contrast,
            "adversarial_loss": pair,
            "view_similarity": all_mean((za * zb).sum(1).mean()),
            "adversarial_similarity": all_mean((worst * zb).sum(1).mean()),
        }
        return report(contrast + self.weight * pair, terms)

    def _project(self, x: Tensor) -> Tensor:
        """Unit projections [N, D] in float32."""
        return F.normalize(self.projector(self.encoder(x)).float(), dim=1)

    def _pair(self, worst: Tensor, zb: Tensor) -> Tensor:
        return nt_xent(worst, zb, temperature=self.temperature)
