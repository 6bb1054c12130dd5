"""URRL: any objective on AugMix views, and consistency of clean and mixed ones.

Inspired by Transferable Unsupervised Robust Representation Learning, OpenReview
Xa3iM4C1nqd: a pretext task of unsupervised learning combined with AugMix. The paper's
formulas and values could not be read; what follows is ours, after AugMix (Hendrycks et
al. 2020, arXiv:1912.02781), whose loss on labels is the cross-entropy of clean images
and 12 times the Jensen-Shannon divergence of three predictions.

With x the first view, and x', x'' two mixtures of it:

    loss = base(views, the first `mixed` of them mixed)
           + weight * mean over images of D(x, x', x'')

In the form "js", D is the Jensen-Shannon divergence of the base's distributions: over
classes where it has labels, over images where it compares images
(`Objective.distribution`). The gradient goes into all three, as in AugMix. In the form
"features", D = (D_cos(f(x'), f(x)) + D_cos(f(x''), f(x))) / 2 with D_cos = 1 - cos. No
gradient goes into f(x): features of mixtures are to become those of the clean image,
and half of the same pull would make clean features worse for being like the mixtures.

A crop and a flip are shared, since mixtures are made from the view. All three pass the
encoder in one batch, as in AugMix.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from rrl_dist.core.batch import Batch
from rrl_dist.core.collectives import all_mean
from rrl_dist.core.errors import UserError
from rrl_dist.data.views import Operation
from rrl_dist.objectives.around import Around
from rrl_dist.objectives.distances import cosine_distance
from rrl_dist.objectives.objective import Objective, report
from rrl_dist.objectives.ramp import Ramp, check_weight
from rrl_dist.objectives.terms import check_temperature


def jensen_shannon(logits: Sequence[Tensor]) -> Tensor:
    """Mean over the distributions of KL(p || mean of all), in nats.

    Args:
        logits: P times [N, K], row i of all of one sample.

    Returns:
        [N] float32 in [0, log P].
    """
    log_p = torch.stack([each.float().log_softmax(1) for each in logits])  # [P, N, K]
    log_mean = torch.logsumexp(log_p, 0) - math.log(len(logits))
    kl = (log_p.exp() * (log_p - log_mean)).sum(2)
    # The sum has terms of both signs, and may round below 0.
    return kl.mean(0).clamp_min(0)


class URRL(Around):
    """A base method's loss on AugMix views, and consistency.

    Args:
        base: the method inside.
        augmix: makes the mixtures; any operation of views.
        mixed: how many of the base's views are mixed, the first ones: 0 to all.
        weight: of the consistency, >= 0; at 0 the base is trained alone, on the same
            views as otherwise.
        ramp: when the weight counts.
        form: "js", "features", or "auto": "js" where the base has a distribution.
        temperature: of the softmax over other images, > 0.
        seed: of the mixtures.

    Raises:
        UserError: a number out of its range, no such form, or a base without a
            distribution for the form "js".
    """

    def __init__(
        self,
        *,
        base: Objective,
        augmix: Operation,
        mixed: int,
        weight: float,
        ramp: Ramp,
        form: str,
        temperature: float,
        seed: int,
    ) -> None:
        super().__init__(base)
        check_weight(weight)
        check_temperature(temperature)
        if not 0 <= mixed <= base.views:
            raise UserError(
                f"objective.mixed={mixed}, but {type(base).__name__} reads views: "
                f"{base.views}; set 0 to {base.views}"
            )
        self.augmix, self.mixed, self.seed = augmix, mixed, seed
        self.weight, self.ramp = weight, ramp
        self.form, self.temperature = _form(form, base), temperature

    def inner(self, batch: Batch) -> Batch:
        clean = batch.views[0]
        views = tuple(
            self._mix(view, batch, number) if number < self.mixed else view
            for number, view in enumerate(batch.views)
        )
        inside = self.base.inner(replace(batch, views=views))
        if self.weight == 0:
            return inside
        first = views[0] if self.mixed else self._mix(clean, batch, 0)
        second = self._mix(clean, batch, len(views))
        return inside.with_extras(
            urrl_clean=clean, urrl_mixed=torch.cat([first, second])
        )

    def _mix(self, view: Tensor, batch: Batch, number: int) -> Tensor:
        key = ("urrl", batch.step, number)
        return self.augmix(view, seed=self.seed, key=key, index=batch.index)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        terms = self.base(batch)
        if self.weight == 0:
            return report(terms["loss"], self.base_terms(terms))
        consistency = all_mean(self._consistency(batch).mean())
        weight = self.weight * self.ramp(batch.progress)
        return report(
            terms["loss"] + weight * consistency,
            {
                **self.base_terms(terms),
                "urrl_consistency": consistency,
                "urrl_weight": torch.full_like(consistency, weight),
            },
        )

    def _consistency(self, batch: Batch) -> Tensor:
        """How far the three of each image are apart, [N]."""
        clean, mixed = batch.extras["urrl_clean"], batch.extras["urrl_mixed"]
        h = self.encoder(torch.cat([clean, mixed]))  # [3N, D]
        if self.form == "js":
            logits = self.base.distribution(
                h, anchors=len(clean), temperature=self.temperature
            )
            return jensen_shannon(logits.chunk(3))
        target, first, second = h.chunk(3)
        target = target.detach()
        return (cosine_distance(first, target) + cosine_distance(second, target)) / 2

    def after_step(self, progress: float) -> None:
        self.base.after_step(progress)


def _form(form: str, base: Objective) -> str:
    if form not in ("auto", "js", "features"):
        raise UserError(f"objective.form={form}; choose auto, js or features")
    if form == "js" and not base.has_distribution:
        raise UserError(
            f"objective.form=js compares distributions, and {type(base).__name__} has "
            "none; set objective.form=features"
        )
    if form == "auto":
        return "js" if base.has_distribution else "features"
    return form
