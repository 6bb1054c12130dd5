"""Any two-view objective, trained on the views that an attack makes worst.

The perturbation raises the base's own loss, so no labels are needed:

    max over B(a) [ and B(b) ] of base(a', b or b')

One view attacked is the adversarial-to-standard form, both views together the
adversarial-to-adversarial form, of Jiang et al., Robust Pre-Training by Adversarial
Contrastive Learning, NeurIPS 2020, arXiv:2010.13337, section 3. The loss couples the
images of the global batch, so all of them move together, on all workers.
"""

from dataclasses import replace

import torch
from torch import Tensor

from rrl_dist.attacks.ascent import ascend, check_attack
from rrl_dist.attacks.balls import Ball
from rrl_dist.core.batch import Batch
from rrl_dist.core.errors import UserError
from rrl_dist.core.modes import evaluating, frozen
from rrl_dist.objectives.around import Around
from rrl_dist.objectives.objective import Objective, report


class Adversarial(Around):
    """A base method's loss on worst-case views.

    Args:
        base: a method of two views without an inner maximization.
        attacked: views that are attacked: 1, the first; or 2, both at once.
        ball: threat model, in [0, 1] pixels.
        steps: of the inner ascent.
        relative_step: step size of the inner ascent as a share of the ball's radius.
        seed: of the random starts.

    Raises:
        UserError: `attacked` is neither, the base has an inner maximization, or it does
            not read two views.
    """

    def __init__(
        self,
        *,
        base: Objective,
        attacked: int,
        ball: Ball,
        steps: int,
        relative_step: float,
        seed: int,
    ) -> None:
        super().__init__(base)
        if attacked not in (1, 2):
            raise UserError(f"objective.attacked={attacked}; set 1 or 2")
        if type(base).inner is not Objective.inner:
            raise UserError(
                f"adversarial is around {type(base).__name__}, which is around or "
                "attacks itself; put adversarial inside it: objective.base"
            )
        if base.views != 2:
            raise UserError(
                f"adversarial attacks pairs of views, and {type(base).__name__} reads "
                f"{base.views}; choose another objective/base=, such as simclr"
            )
        check_attack(steps=steps, relative_step=relative_step)
        self.attacked, self.ball = attacked, ball
        self.steps, self.seed = steps, seed
        self.step_size = relative_step * ball.eps

    def inner(self, batch: Batch) -> Batch:
        # Rows of both views at once: the loss moves them together. It is a mean, whose
        # gradient to one image would vanish in half precision.
        clean = torch.cat(batch.views[: self.attacked])
        starts = [
            self.ball.start(
                view,
                seed=self.seed,
                key=("adversarial", batch.step, number),
                index=batch.index,
            )
            for number, view in enumerate(batch.views[: self.attacked])
        ]
        with evaluating(self.base), frozen(self.base):
            worst = ascend(
                lambda x: len(x) * self.base(self._with(batch, x))["loss"],
                torch.cat(starts),
                clean,
                ball=self.ball,
                steps=self.steps,
                step_size=self.step_size,
            )
        return self._with(batch, worst)

    def _with(self, batch: Batch, x: Tensor) -> Batch:
        """The batch with its attacked views replaced."""
        views = (*x.chunk(self.attacked), *batch.views[self.attacked :])
        return replace(batch, views=views)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        terms = self.base(batch)
        return report(terms["loss"], self.base_terms(terms))

    def after_step(self, progress: float) -> None:
        self.base.after_step(progress)
