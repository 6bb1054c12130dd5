"""Auto-PGD: a PGD that chooses its step sizes by itself.

Croce and Hein 2020, arXiv:2003.01690, Algorithm 1, with the roundings of the authors'
code (fra31/auto-attack): lengths between checkpoints are whole numbers, and the first
condition includes equality. Only the first comparison of a run differs from that code,
which makes it with zero: here, as in the paper, it is made with the starting point.
In L1 balls it moves as in Croce and Hein 2021, arXiv:2103.01208.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from rrl_dist.attacks.ascent import value_and_gradient
from rrl_dist.attacks.balls import Ball
from rrl_dist.attacks.checks import check_counts
from rrl_dist.attacks.classifier import Classifier
from rrl_dist.attacks.climb import Climb
from rrl_dist.attacks.l1 import L1
from rrl_dist.attacks.margins import (
    cross_entropy,
    dlr,
    logit_margin,
    ranked_class,
    targeted_dlr,
)
from rrl_dist.attacks.passes import Passes
from rrl_dist.attacks.precision import PRECISIONS, check_precision
from rrl_dist.attacks.result import Attacked
from rrl_dist.attacks.sparse_climb import SparseClimb
from rrl_dist.attacks.trial_attack import attack_in_trials
from rrl_dist.attacks.trials import Packing, Samples
from rrl_dist.core.errors import UserError
from rrl_dist.core.randomness import normal

Steps = TypeVar("Steps", Climb, SparseClimb)
# Logits, labels, target classes -> what is raised; all but the last ignore targets.
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
LOSSES: dict[str, Loss] = {
    "ce": lambda logits, y, _: cross_entropy(logits, y),
    "dlr": lambda logits, y, _: dlr(logits, y),
    "targeted-dlr": targeted_dlr,
}


@dataclass(frozen=True, kw_only=True)
class APGD:
    """Auto-PGD that spends nothing on what is decided.

    It passes over what is wrong from the start, and is done with a sample at the first
    wrong image. Of a sample that stays right the image of highest score is kept, the
    clean one included: the loss, or the margin of logits where targets differ.

    Attributes:
        ball: the threat model.
        loss: what is raised: "ce", the cross-entropy; "dlr", the difference of logits
            ratio; or "targeted-dlr", in turn towards the classes that come next in the
            clean logits.
        steps: gradient steps of a trial.
        restarts: trials of a sample, and of each of its targets, until one succeeds.
        targets: classes that are aimed at, at most all but the label; 1 if none is.
        seed: draws depend on (seed, name, trial, sample).
        micro_batch: images of every call of the model.
        in_turn: see `trials.Packing`.
        eot: passes whose gradients and losses are averaged at each step, for models
            that draw at random (expectation over transformation, Athalye et al. 2018,
            arXiv:1802.00420); an image counts as wrong where most passes are.
        precision: of the passes, see `rrl_dist.attacks.precision`.

    Raises:
        UserError: if a number is out of range.
    """

    ball: Ball
    loss: str
    steps: int
    restarts: int
    targets: int
    seed: int
    micro_batch: int
    in_turn: bool = False
    eot: int = 1
    precision: str = PRECISIONS[0]

    def __post_init__(self) -> None:
        check_precision(self.precision)
        check_counts(
            steps=self.steps,
            restarts=self.restarts,
            targets=self.targets,
            micro_batch=self.micro_batch,
            eot=self.eot,
        )
        if self.loss not in LOSSES:
            raise UserError(f"apgd has loss={self.loss}; choose {'|'.join(LOSSES)}")
        if self.targets > 1 and not self._aims:
            raise UserError(
                f"apgd has targets={self.targets} with loss={self.loss}, which aims at "
                "none; set targets=1 or loss=targeted-dlr"
            )

    @property
    def _aims(self) -> bool:
        return self.loss == "targeted-dlr"

    @property
    def name(self) -> str:
        """Its name in AutoAttack."""
        return "apgd-t" if self._aims else f"apgd-{self.loss}"

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, index: Tensor | None = None
    ) -> Tensor:
        """As `run`, the images alone."""
        return self.run(model, x, y, index).x_adv

    def run(
        self, model: nn.Module, x: Tensor, y: Tensor, index: Tensor | None = None
    ) -> Attacked:
        """See `rrl_dist.attacks.result.Attack.run`."""
        packing = Packing(self.micro_batch, self.in_turn)
        columns = (x, y, index)
        return attack_in_trials(self, model, columns, packing, self.precision)

    def trials(self, classes: int) -> int:
        """Of each sample, with a model of so many classes."""
        return self.restarts * min(self.targets, max(classes - 1, 1))

    def cost(self, classes: int) -> Passes:
        """See `rrl_dist.attacks.passes.Costed`."""
        visits = self.trials(classes) * (self.steps + 1) * self.eot
        return Passes(visits + 1, visits)

    def begin(self, samples: Samples, number: Tensor) -> Climb | SparseClimb:
        """See `trials.Method`; number = restart * targets + target."""
        classes = samples.logits.shape[1]
        rank = number % min(self.targets, max(classes - 1, 1))
        target = ranked_class(samples.logits, samples.y, rank)
        # A trial is part of a draw's place, since rows are of different trials.
        where = samples.ids + (number << 40)
        if isinstance(self.ball, L1):
            pixels = samples.x[0].numel()
            shift = normal(self.seed, self.name, "shift", index=where, n=pixels)
            x = samples.x + shift.reshape(samples.x.shape)
            return SparseClimb.begin(samples, target, x)
        x = self.ball.surface_start(
            samples.x, seed=self.seed, key=(self.name,), index=where
        )
        return Climb.begin(samples, target, x, 2 * self.ball.eps)

    def step(self, classifier: Classifier, state: Steps) -> Steps:
        """See `trials.Method`: one visit."""
        x = state.moved(self.ball, self.steps)
        value, grad, margin, wrong = self._visit(classifier, x, state)
        score = margin if self._aims else value
        offered: Steps = state.offered(x, score, wrong, self.steps)
        after: Steps = offered.after(x, value, grad, self.ball, self.steps)
        return after._replace(queries=state.queries + self.eot)

    def _visit(
        self, classifier: Classifier, x: Tensor, state: Climb | SparseClimb
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The loss (-inf for NaN), its gradient, the margin, and whether the model is
        wrong; over several passes the means, and what most of them say."""
        passes = [self._pass(classifier, x, state) for _ in range(self.eot)]
        if len(passes) == 1:
            return passes[0]
        columns = (torch.stack(column) for column in zip(*passes, strict=True))
        values, grads, margins, wrongs = columns
        most = 2 * wrongs.sum(0) > self.eot
        return values.mean(0), grads.mean(0), margins.mean(0), most

    def _pass(
        self, classifier: Classifier, x: Tensor, state: Climb | SparseClimb
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        logits: Tensor | None = None

        def value(x: Tensor) -> Tensor:
            nonlocal logits
            logits = classifier(x)
            return LOSSES[self.loss](logits, state.y, state.target)

        values, grad = value_and_gradient(value, x)
        assert logits is not None
        logits = logits.detach()
        margin = logit_margin(logits, state.y)
        wrong = classifier.wrong(x, logits, state.y)
        return values.nan_to_num(nan=-torch.inf), grad, margin, wrong
