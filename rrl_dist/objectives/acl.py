"""ACL: SimCLR on clean and on attacked views at once, each with batch norms of its own.

Jiang et al., Robust Pre-Training by Adversarial Contrastive Learning, NeurIPS 2020,
arXiv:2010.13337: the dual stream, the only form in the authors' released code
(VITA-Group/Adversarial-Contrastive-Learning, train_simCLR.py), which this follows:

    (a', b') = argmax over B(a) x B(b) of NTX(a', b'; adversarial batch norms)
    loss     = (1 - weight) NTX(a, b; clean batch norms)
             + weight NTX(a', b'; adversarial batch norms)

with NTX SimCLR's loss and weight 1/2. All weights but those of batch norms are common.
The attack is projected gradient ascent on both views together, network in eval mode.
"""

from collections.abc import Callable
from contextlib import ExitStack
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rrl_dist.attacks.ascent import ascend, check_attack
from rrl_dist.attacks.balls import Ball
from rrl_dist.core.batch import Batch
from rrl_dist.core.collectives import all_mean
from rrl_dist.core.errors import UserError
from rrl_dist.core.modes import evaluating, frozen
from rrl_dist.models.branches import Branch
from rrl_dist.objectives.objective import Objective, report, width_of
from rrl_dist.objectives.simclr import nt_xent
from rrl_dist.objectives.terms import check_temperature

_BATCH_NORM = ("adversarial", "clean", "shared")


class ACL(Objective):
    """The dual stream of ACL.

    Args:
        encoder: trained.
        projector: builds the head from the number of features.
        temperature: of the softmax, > 0.
        weight: share of the adversarial stream in the loss, in [0, 1]; at 0 this is
            SimCLR, and nothing else is done.
        batch_norm: which stream's the encoder keeps, "adversarial" or "clean", the
            other's being dropped with the head; or one set for both, "shared".
        ball: threat model, in [0, 1] pixels.
        steps: of the inner ascent.
        relative_step: step size of the inner ascent as a share of the ball's radius.
        seed: of the random starts.

    Raises:
        UserError: an option is none, or the encoder has no batch norm to have two of.
    """

    def __init__(
        self,
        *,
        encoder: nn.Module,
        projector: Callable[[int], nn.Module],
        temperature: float,
        weight: float,
        batch_norm: str,
        ball: Ball,
        steps: int,
        relative_step: float,
        seed: int,
    ) -> None:
        super().__init__()
        check_temperature(temperature)
        check_attack(steps=steps, relative_step=relative_step)
        _check_options(weight, batch_norm)
        self.encoder = encoder
        self.projector = projector(width_of(encoder, "num_features"))
        self.temperature, self.weight = temperature, weight
        self.batch_norm = batch_norm
        self.ball, self.steps, self.seed = ball, steps, seed
        self.step_size = relative_step * ball.eps
        # Of encoder and head; with one stream there is one kind of images.
        two_sets = weight > 0 and batch_norm != "shared"
        self.branches = nn.ModuleList(
            _branches(encoder, self.projector) if two_sets else []
        )

    def inner(self, batch: Batch) -> Batch:
        if self.weight == 0:
            return batch
        starts = [
            self.ball.start(
                view,
                seed=self.seed,
                key=("acl", batch.step, number),
                index=batch.index,
            )
            for number, view in enumerate(batch.views)
        ]
        # Rows of both views at once: the loss moves them together. It is a mean, whose
        # gradient to one image would vanish in half precision.
        with evaluating(self), frozen(self):
            worst = ascend(
                lambda x: len(x) * self._loss(x, "adversarial")[0],
                torch.cat(starts),
                torch.cat(batch.views),
                ball=self.ball,
                steps=self.steps,
                step_size=self.step_size,
            )
        return batch.with_extras(acl_worst=worst)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        clean, similarity = self._loss(torch.cat(batch.views), "clean")
        terms = {"clean_loss": clean, "view_similarity": similarity}
        if self.weight == 0:
            return report(clean, terms)
        worst, moved = self._loss(batch.extras["acl_worst"], "adversarial")
        terms |= {"adversarial_loss": worst, "adversarial_similarity": moved}
        return report((1 - self.weight) * clean + self.weight * worst, terms)

    def _loss(self, x: Tensor, kind: str) -> tuple[Tensor, Tensor]:
        """x: [2N, 3, H, W], both views -> NT-Xent and mean cosine of partners, by the
        batch norms of that kind of images."""
        za, zb = F.normalize(self._project(x, kind).float(), dim=1).chunk(2)
        loss = nt_xent(za, zb, temperature=self.temperature)
        return loss, all_mean((za * zb).sum(1).mean())

    def _project(self, x: Tensor, kind: str) -> Tensor:
        """Projections [N, D] of images of one kind, by its batch norms."""
        with ExitStack() as inside:
            if kind != self.batch_norm:
                networks = (self.encoder, self.projector)
                for branch, network in zip(self.branches, networks, strict=False):
                    inside.enter_context(cast(Branch, branch).within(network))
            z: Tensor = self.projector(self.encoder(x))
        return z


def _check_options(weight: float, batch_norm: str) -> None:
    if not 0 <= weight <= 1:
        raise UserError(
            f"objective.weight={weight} is the share of attacked images in the loss; "
            "set 0 to 1"
        )
    if batch_norm not in _BATCH_NORM:
        raise UserError(
            f"objective.batch_norm={batch_norm}; choose {'|'.join(_BATCH_NORM)}"
        )
    if weight == 1 and batch_norm == "clean":
        raise UserError(
            "objective.weight=1 trains on attacked images alone, and the encoder would "
            "keep the batch norms of clean ones; set objective.batch_norm=adversarial"
        )


def _branches(encoder: nn.Module, projector: nn.Module) -> list[Branch]:
    """The encoder's second set of batch norms, and the head's where it has any."""
    in_head = any(isinstance(module, _BatchNorm) for module in projector.modules())
    return [Branch(encoder), *([Branch(projector)] if in_head else [])]
