"""DeACL: robust distillation of an ordinary self-supervised teacher.

Zhang et al., Decoupled Adversarial Contrastive Learning, ECCV 2022, arXiv:2207.10899.
Stage 1 is any self-supervised run. This is stage 2, with t the frozen teacher's
features, s the student's, x one weakly augmented view and D = 1 - cos:

    x_adv = argmax over the ball of D(s(x_adv), t(x))   (PGD, student in eval mode)
    loss  = D(s(x), t(x)) + weight * D(s(x_adv), s(x))  (batch means)

As in the authors' code, whose loss is this one less 1 + weight, s(x) in the second term
is not detached, and x and x_adv go through the student in one batch, so batch norm sees
both. Unlike it, the teacher runs without gradients, once per step, and the random start
is clipped to [0, 1].

The options depart from that code. What the attack aims at, the stored image for the
teacher under a strong view for the student, the teacher's frozen projector as a second
space, and separate passes are those of ProFeAT (val-iisc/ProFeAT, pretraining.py),
though its attack aims at the student in one space and at the teacher in the other.
Batch norms of their own for attacked images are those of ACL (Jiang et al., NeurIPS
2020, arXiv:2010.13337), whose attack too sees the attacked images' ones.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from rrl_dist.attacks.ascent import ascend, check_attack
from rrl_dist.attacks.balls import Ball
from rrl_dist.core.batch import Batch
from rrl_dist.core.collectives import all_mean
from rrl_dist.core.errors import UserError
from rrl_dist.core.modes import evaluating, frozen
from rrl_dist.models.artefact import load_strictly
from rrl_dist.models.branches import Branch
from rrl_dist.objectives.distances import distance_of
from rrl_dist.objectives.feature_cache import FeatureCache
from rrl_dist.objectives.matching import Matching
from rrl_dist.objectives.objective import Frozen, Objective, report
from rrl_dist.objectives.ramp import Ramp, check_weight

_CHOICES = {
    "target": ("teacher", "student"),
    "defend": ("student", "teacher"),
    "passes": ("joint", "separate"),
    "batch_norm": ("shared", "clean", "adversarial"),
    "teacher_sees": ("view", "second", "image"),
    "attack_precision": ("step", "fp32"),
}


class DeACL(Objective):
    """Stage 2 of DeACL.

    Args:
        encoder: the student.
        teacher: frozen, with as many features as the student.
        weight: of the adversarial term (lambda of the paper).
        ramp: when the weight counts.
        distance: of both terms and of the attack: "cosine", "l2" or "kl".
        target: whose clean features the attack moves away from: "teacher" or "student".
        defend: whose clean features the attacked image is pulled to: "student" or
            "teacher".
        passes: clean and attacked images in one batch, "joint", or in two, "separate".
        batch_norm: "shared" by both kinds of images; or one set for each kind, of which
            the encoder keeps that of "clean" or of "adversarial" ones.
        teacher_sees: the student's "view", the "second" view of its image, or the
            stored "image".
        cache_teacher: keep the teacher's features of the stored images.
        projector: compare in the teacher's projection too.
        attack_precision: of the inner maximization, teacher included: the "step"'s, or
            "fp32".
        ball: threat model, in [0, 1] pixels.
        steps: of the inner PGD.
        relative_step: step size of the inner PGD as a share of the ball's radius.
        start_from_teacher: whether the student begins with the teacher's weights.
        seed: of the random starts.

    Raises:
        UserError: an option is none, options contradict each other, or the teacher does
            not fit.
    """

    def __init__(
        self,
        *,
        encoder: nn.Module,
        teacher: Frozen,
        weight: float,
        ramp: Ramp,
        distance: str,
        target: str,
        defend: str,
        passes: str,
        batch_norm: str,
        teacher_sees: str,
        cache_teacher: bool,
        projector: bool,
        attack_precision: str,
        ball: Ball,
        steps: int,
        relative_step: float,
        start_from_teacher: bool,
        seed: int,
    ) -> None:
        super().__init__()
        check_weight(weight)
        check_attack(steps=steps, relative_step=relative_step)
        self.encoder, self.teacher = encoder, teacher
        self.weight, self.ramp = weight, ramp
        self.target = _chosen("target", target)
        self.defend = _chosen("defend", defend)
        self.passes = _chosen("passes", passes)
        self.batch_norm = _chosen("batch_norm", batch_norm)
        self.teacher_sees = _chosen("teacher_sees", teacher_sees)
        self.views = 2 if teacher_sees == "second" else 1
        self.attack_precision = _chosen("attack_precision", attack_precision)
        self.ball, self.steps, self.seed = ball, steps, seed
        self.step_size = relative_step * ball.eps
        _check_teacher(encoder, teacher, projector)
        self.matching = Matching(
            distance_of(distance), teacher.project if projector else None
        )
        self.cache = _cache(teacher, teacher_sees) if cache_teacher else None
        if start_from_teacher:
            _start_from(encoder, teacher)
        self.branch = _branch(encoder, passes) if batch_norm != "shared" else None

    def inner(self, batch: Batch) -> Batch:
        x = batch.views[0]
        key = ("deacl", batch.step)
        start = self.ball.start(x, seed=self.seed, key=key, index=batch.index)
        with self._precision(x), evaluating(self), frozen(self):
            target = self._teacher_features(batch)
            away = self.matching.away_from(
                target if self.target == "teacher" else self._clean_features(x)
            )
            x_adv = ascend(
                lambda moved: away(self._student(moved, "adversarial")),
                start,
                x,
                ball=self.ball,
                steps=self.steps,
                step_size=self.step_size,
            )
        return batch.with_extras(x_adv=x_adv, target=target)

    def _precision(self, x: Tensor) -> AbstractContextManager[Any]:
        """Small gradients vanish in half precision, and with them their signs."""
        if self.attack_precision == "step":
            return nullcontext()
        return torch.autocast(x.device.type, enabled=False)

    def _teacher_features(self, batch: Batch) -> Tensor:
        """t, [N, D], without graph."""
        if self.cache is not None:
            return self.cache(batch.images, batch.index)
        return self.teacher(self._teachers_image(batch))

    def _teachers_image(self, batch: Batch) -> Tensor:
        if self.teacher_sees == "image":
            return batch.images
        return batch.views[1 if self.teacher_sees == "second" else 0]

    @torch.no_grad()
    def _clean_features(self, x: Tensor) -> Tensor:
        return self._student(x, "clean")

    def _student(self, x: Tensor, kind: str) -> Tensor:
        """Features [N, D] of images of one kind, by its batch norms."""
        if self.branch is None or kind == self.batch_norm:
            return cast(Tensor, self.encoder(x))
        with self.branch.within(self.encoder):
            return cast(Tensor, self.encoder(x))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        h, h_adv = self._features(batch.views[0], batch.extras["x_adv"])
        target = batch.extras["target"]
        anchor = h if self.defend == "student" else target
        clean = all_mean(self.matching.away_from(target)(h).mean())
        adversarial = all_mean(self.matching.away_from(anchor)(h_adv).mean())
        weight = self.weight * self.ramp(batch.progress)
        terms = {
            "clean_distance": clean,
            "adversarial_distance": adversarial,
            "adversarial_weight": torch.full_like(clean, weight),
        }
        return report(clean + weight * adversarial, terms)

    def _features(self, x: Tensor, x_adv: Tensor) -> tuple[Tensor, ...]:
        """The student's of both, [N, D] each."""
        if self.passes == "separate":
            return self._student(x, "clean"), self._student(x_adv, "adversarial")
        return cast(Tensor, self.encoder(torch.cat([x, x_adv]))).chunk(2)


def _chosen(name: str, value: str) -> str:
    if value not in _CHOICES[name]:
        options = "|".join(_CHOICES[name])
        raise UserError(f"objective.{name}={value}; choose {options}")
    return value


def _check_teacher(encoder: nn.Module, teacher: Frozen, projector: bool) -> None:
    theirs, ours = teacher.module.num_features, encoder.num_features
    if theirs != ours:
        raise UserError(
            f"the teacher has {theirs} features and the model {ours}; set model= "
            "to the teacher's"
        )
    if projector and teacher.projector is None:
        raise UserError(
            "objective.projector=true, but the teacher comes without one; take a "
            "method's that has one, its whole folder, or set objective.projector=false"
        )


def _cache(teacher: Frozen, sees: str) -> FeatureCache:
    if sees != "image":
        raise UserError(
            f"objective.cache_teacher=true, but the teacher sees a {sees}, which is "
            "another at each epoch; set objective.teacher_sees=image"
        )
    return FeatureCache(teacher)


def _branch(encoder: nn.Module, passes: str) -> Branch:
    if passes != "separate":
        raise UserError(
            "objective.batch_norm gives each kind of images its own batch norms, but "
            f"objective.passes={passes}; set objective.passes=separate"
        )
    return Branch(encoder)


def _start_from(encoder: nn.Module, teacher: Frozen) -> None:
    load_strictly(
        encoder,
        teacher.module.state_dict(),
        source="the teacher",
        mend="set model= to its, or objective.start_from_teacher=false",
    )
