"""An attack on features: how far an encoder's answer can be moved, whatever the task.

Projected gradient ascent (Madry et al. 2018, arXiv:1706.06083) on ||f(x') - f(x)||_2,
f the encoder of the model. Its mean over images is R(f) of
`rrl_dist.objectives.tarrl`, from below, as an ascent gives it.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from rrl_dist.attacks.ascent import ascend
from rrl_dist.attacks.balls import Ball
from rrl_dist.attacks.batch_attack import attack_in_batches, check_step
from rrl_dist.attacks.checks import check_counts
from rrl_dist.attacks.classifier import Classifier
from rrl_dist.attacks.passes import Passes
from rrl_dist.attacks.result import Attacked, Best
from rrl_dist.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class FeatureAttack:
    """Keeps, of the clean image and all iterates of all restarts, the image whose
    features are furthest from the clean one's.

    It reads neither labels nor head, so an image that is wrong may become right. Every
    restart begins at a draw from the ball: at the clean image the gradient is zero.

    Attributes:
        ball: the threat model.
        steps: gradient steps of a restart.
        relative_step: length of a step as a share of the radius, > 0.
        restarts: runs per sample.
        seed: draws depend on (seed, name, restart, sample).
        micro_batch: images of every call of the encoder.

    Raises:
        UserError: if a number is out of range.
    """

    ball: Ball
    steps: int
    relative_step: float
    restarts: int
    seed: int
    micro_batch: int

    def __post_init__(self) -> None:
        check_counts(
            steps=self.steps, restarts=self.restarts, micro_batch=self.micro_batch
        )
        check_step("feature attack", self.relative_step)

    @property
    def name(self) -> str:
        """Such as "feature20"."""
        return f"feature{self.steps}"

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, index: Tensor | None = None
    ) -> Tensor:
        """As `run`, the images alone."""
        return self.run(model, x, y, index).x_adv

    def run(
        self, model: nn.Module, x: Tensor, y: Tensor, index: Tensor | None = None
    ) -> Attacked:
        """See `rrl_dist.attacks.result.Attack.run`; `model.encoder` is attacked.

        Raises:
            UserError: also if the model has no encoder, or one that gives no features.
        """
        features = _Features(model)
        attack = partial(self._attack, features)
        found = attack_in_batches(self, model, (x, y, index), attack)
        features.verify()
        return found

    def cost(self, classes: int) -> Passes:
        """See `rrl_dist.attacks.passes.Costed`."""
        forward = 1 + self.restarts * (self.steps + 1)
        return Passes(forward, self.restarts * self.steps)

    def _attack(
        self,
        features: "_Features",
        _: Classifier,
        x: Tensor,
        y: Tensor,
        index: Tensor,
    ) -> tuple[Tensor]:
        """One micro-batch, all restarts."""
        h = features(x)
        none_wrong = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        best = Best.of(x, h.new_zeros(len(x)), none_wrong)

        def value(x: Tensor) -> Tensor:
            nonlocal best
            moved: Tensor = torch.linalg.vector_norm(features(x) - h, dim=1)
            best = best.offer(x.detach(), moved.detach(), none_wrong)
            return moved

        step_size = self.relative_step * self.ball.eps
        for restart in range(self.restarts):
            key = (self.name, restart)
            start = self.ball.start(x, seed=self.seed, key=key, index=index)
            last = ascend(
                value, start, x, ball=self.ball, steps=self.steps, step_size=step_size
            )
            value(last)
        return (best.x,)


class _Features:
    """Calls a model's encoder and remembers what was wrong with its features."""

    def __init__(self, model: nn.Module) -> None:
        self._encoder = getattr(model, "encoder", None)
        self._name = type(model).__name__
        self._nan: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """x: [N, ...] images -> [N, D] float32 features."""
        if not isinstance(self._encoder, nn.Module):
            raise UserError(
                f"{self._name} has no encoder, so no features to attack; "
                "give an encoder with a head, as rrl has written it"
            )
        h = self._encoder(x)
        if not isinstance(h, Tensor) or h.ndim != 2 or len(h) != len(x):
            shaped = isinstance(h, Tensor)
            found = f"shape {tuple(h.shape)}" if shaped else type(h).__name__
            raise UserError(
                f"the encoder returns {found} for {len(x)} images; "
                "attack one that returns features [images, D]"
            )
        if x.requires_grad and not h.requires_grad:
            raise UserError(
                "the encoder's features carry no gradient to the images, so this "
                "attack would find it robust; call it without torch.no_grad or detach"
            )
        nan = h.detach().isnan().any()
        self._nan = nan if self._nan is None else self._nan | nan
        return h.float()

    def verify(self) -> None:
        """To be called once at the end: reading a flag makes the host wait."""
        if self._nan is not None and bool(self._nan):
            raise UserError(
                "the encoder returned NaN features; check its weights and precision"
            )
