"""Anchored: any method, and how far the features have moved from where they began.

Inspired by Transferable Unsupervised Robust Representation Learning (URRL, OpenReview
Xa3iM4C1nqd), which adds a task-agnostic similarity term to fine-tuning, so that what
pretraining made robust stays so. Its formula could not be read; both forms are ours.

Let f be the encoder, f0 the same before fine-tuning, frozen, which is the teacher here,
and x the first view:

    loss = base + weight * S

    cosine      S = mean of 1 - cos(f(x), f0(x))
    relations   S = mean over i of KL(q0_i || q_i), where q_i is the softmax over the
                other images j of the global batch of cos(f(x_i), f(x_j)) / temperature,
                and q0_i is that of f0

The first holds each feature where it was; the second only which images are near which,
so the features may turn and stretch together. x passes the encoder apart from what the
base makes of it, in train mode, so batch norm's statistics count it once more.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from rrl_dist.core.batch import Batch
from rrl_dist.core.collectives import all_gather, all_mean, rank
from rrl_dist.core.errors import UserError
from rrl_dist.objectives.around import Around
from rrl_dist.objectives.distances import cosine_distance
from rrl_dist.objectives.objective import Frozen, Objective, report, width_of
from rrl_dist.objectives.ramp import Ramp, check_weight
from rrl_dist.objectives.terms import check_temperature, divergence, products

_FORMS = ("cosine", "relations")


def similarities(h: Tensor, *, temperature: float) -> Tensor:
    """Cosines of each image with the others of the global batch, over a temperature.

    Args:
        h: [N, D] features on each of W workers.
        temperature: > 0.

    Returns:
        [N, WN - 1] in float32, with gradients into all features.
    """
    unit = F.normalize(h.float(), dim=1)
    everyone = all_gather(unit)  # [WN, D]
    own = rank() * len(h) + torch.arange(len(h), device=h.device)
    others = ~F.one_hot(own, num_classes=len(everyone)).bool()
    # An image is as near itself as can be, whatever the encoder.
    cosines = products(unit, everyone)[others]
    return cosines.reshape(len(h), len(everyone) - 1) / temperature


class Anchored(Around):
    """A base method's loss and the distance from the pretrained features.

    Args:
        base: the method inside; its encoder is trained.
        teacher: the encoder as it was before, with as many features.
        weight: of the distance, >= 0; at 0 this is the base, and nothing else is done.
        ramp: when the weight counts.
        form: "cosine" or "relations".
        temperature: of the softmaxes of relations, > 0.

    Raises:
        UserError: there is no such form, the base's encoder is frozen, or the teacher
            does not fit.
    """

    teacher: Frozen

    def __init__(
        self,
        *,
        base: Objective,
        teacher: Frozen,
        weight: float,
        ramp: Ramp,
        form: str,
        temperature: float,
    ) -> None:
        super().__init__(base)
        check_weight(weight)
        check_temperature(temperature)
        if form not in _FORMS:
            raise UserError(f"objective.form={form}; choose {'|'.join(_FORMS)}")
        _check_encoders(base, teacher)
        self.teacher, self.form = teacher, form
        self.weight, self.ramp = weight, ramp
        self.temperature = temperature

    def inner(self, batch: Batch) -> Batch:
        if self.weight == 0:
            return self.base.inner(batch)
        # The base may replace its first view; features are held at the original.
        x = batch.views[0]
        return self.base.inner(batch).with_extras(
            anchored_x=x, anchored_target=self.teacher(x)
        )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        terms = self.base(batch)
        if self.weight == 0:
            return report(terms["loss"], self.base_terms(terms))
        h = self.encoder(batch.extras["anchored_x"])
        apart = self._apart(h, batch.extras["anchored_target"])
        weight = self.weight * self.ramp(batch.progress)
        return report(
            terms["loss"] + weight * apart,
            {
                **self.base_terms(terms),
                "anchored_distance": apart,
                "anchored_weight": torch.full_like(apart, weight),
            },
        )

    def _apart(self, h: Tensor, target: Tensor) -> Tensor:
        """S of the module's docstring, of features [N, D], a scalar."""
        if self.form == "cosine":
            return all_mean(cosine_distance(h, target).mean())
        before = similarities(target, temperature=self.temperature)
        now = similarities(h, temperature=self.temperature)
        return all_mean(divergence(before, now).mean())

    def after_step(self, progress: float) -> None:
        self.base.after_step(progress)


def _check_encoders(base: Objective, teacher: Frozen) -> None:
    if not any(p.requires_grad for p in base.encoder.parameters()):
        raise UserError(
            "anchored holds an encoder near what it was, and the base leaves it as it "
            "is; set objective.base.train_encoder=true"
        )
    ours = width_of(base.encoder, "num_features")
    theirs = width_of(teacher.module, "num_features")
    if theirs != ours:
        raise UserError(
            f"the teacher has {theirs} features and the model {ours}; set teacher= to "
            "the model that init= names"
        )
