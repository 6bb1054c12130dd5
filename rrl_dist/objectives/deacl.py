"""DeACL: robust distillation of an ordinary self-supervised teacher.

Zhang et al., Decoupled Adversarial Contrastive Learning, ECCV 2022, arXiv:2207.10899.
Stage 1 is any self-supervised run. This is stage 2, with t the frozen teacher's
features, s the student's and x one weakly augmented view:

    x_adv = argmax over the ball of -cos(s(x_adv), t(x))   (PGD, student in eval mode)
    loss  = -cos(s(x), t(x)) - weight * cos(s(x_adv), s(x))  (batch means)

As in the authors' code, s(x) in the second term is not detached, and x and x_adv go
through the student in one batch, so batch norm sees both. Unlike it, the teacher runs
without gradients, once per step, and the random start is clipped to [0, 1].
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrl_dist.attacks.ascent import ascend
from rrl_dist.attacks.balls import Ball
from rrl_dist.core.batch import Batch
from rrl_dist.core.collectives import all_mean
from rrl_dist.core.errors import UserError
from rrl_dist.core.modes import evaluating, frozen
from rrl_dist.models.artefact import load_strictly
from rrl_dist.objectives.objective import Frozen, Objective, report


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """[N, D], [N, D] -> cosine of each pair of rows, [N], in float32."""
    return F.cosine_similarity(a.float(), b.float(), dim=1)


class DeACL(Objective):
    """Stage 2 of DeACL.

    Args:
        encoder: the student.
        teacher: frozen, with as many features as the student.
        weight: of the adversarial term (lambda of the paper).
        ball: threat model, in [0, 1] pixels.
        steps: of the inner PGD.
        relative_step: step size of the inner PGD as a share of the ball's radius.
        start_from_teacher: whether the student begins with the teacher's weights.
        seed: of the random starts.
    """

    def __init__(
        self,
        *,
        encoder: nn.Module,
        teacher: Frozen,
        weight: float,
        ball: Ball,
        steps: int,
        relative_step: float,
        start_from_teacher: bool,
        seed: int,
    ) -> None:
        super().__init__()
        theirs, ours = teacher.module.num_features, encoder.num_features
        if theirs != ours:
            raise UserError(
                f"the teacher has {theirs} features and the model {ours}; set model= "
                "to the teacher's"
            )
        self.encoder, self.teacher = encoder, teacher
        self.weight, self.ball = weight, ball
        self.steps, self.seed = steps, seed
        self.step_size = relative_step * ball.eps
        if start_from_teacher:
            load_strictly(
                encoder,
                teacher.module.state_dict(),
                source="the teacher",
                mend="set model= to its, or objective.start_from_teacher=false",
            )

    def inner(self, batch: Batch) -> Batch:
        x = batch.views[0]
        target = self.teacher(x)

        def value(x_adv: Tensor) -> Tensor:
            return -cosine(self.encoder(x_adv), target)

        key = ("deacl", batch.step)
        start = self.ball.start(x, seed=self.seed, key=key, index=batch.index)
        with evaluating(self.encoder), frozen(self.encoder):
            x_adv = ascend(
                value,
                start,
                x,
                ball=self.ball,
                steps=self.steps,
                step_size=self.step_size,
            )
        return batch.with_extras(x_adv=x_adv, target=target)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        x, x_adv = batch.views[0], batch.extras["x_adv"]
        h, h_adv = cast(Tensor, self.encoder(torch.cat([x, x_adv]))).chunk(2)
        clean = all_mean(cosine(h, batch.extras["target"]).mean())
        adversarial = all_mean(cosine(h_adv, h).mean())
        loss = -clean - self.weight * adversarial
        return report(loss, {"clean_cos": clean, "adversarial_cos": adversarial})
