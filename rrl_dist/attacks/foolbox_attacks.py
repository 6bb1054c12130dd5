"""The Boundary attack and HopSkipJump, as foolbox has them.

Rauber, Zimmermann, Bethge, Brendel 2020, foolbox 3 (JOSS 10.21105/joss.02607); the
attacks are Brendel, Rauber, Bethge 2018, arXiv:1712.04248, and Chen, Jordan, Wainwright
2020, arXiv:1904.02144. foolbox is an extra: `pip install "rrl_dist[foolbox]"`.

It gets one sample at a time, since samples of one batch share draws there and wait for
each other, and none that is wrong from the start, about which HopSkipJump would ask
without end. Whatever it does ends when the queries are spent; the nearest wrong image
that it has asked about counts.
"""

import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, cast

import torch
from torch import Tensor, nn

from rrl_dist.attacks.balls import Ball, as_column
from rrl_dist.attacks.border import length
from rrl_dist.attacks.checks import check_inputs
from rrl_dist.attacks.classifier import borrowed
from rrl_dist.attacks.decisions import check_decisions, right_from_the_start
from rrl_dist.attacks.interviews import Ask, Terms, interview
from rrl_dist.attacks.passes import Passes
from rrl_dist.attacks.result import Attacked
from rrl_dist.attacks.starts import start_images
from rrl_dist.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class FoolboxAttack(ABC):
    """Minimizes the Euclidean distance of a wrong image, by the model's answers alone.

    What it gives back is as `tangent_attack.TangentAttack` says; it begins at the same
    images.

    Attributes:
        ball: `L2`, with the largest distance that counts.
        queries: forward passes of a sample that is right, the clean image's included,
            at most; 2 or more.
        seed: draws depend on (seed, name, sample).
        micro_batch: images of every call of the model.

    Raises:
        UserError: if a number is out of range, the ball is of another norm, or foolbox
            is not installed.
    """

    ball: Ball
    queries: int
    seed: int
    micro_batch: int

    def __post_init__(self) -> None:
        check_decisions(self.name, self.ball, self.queries, self.micro_batch)
        if find_spec("foolbox") is None:
            raise UserError(
                f"{self.name} runs through foolbox, which is not installed; "
                'pip install "rrl_dist[foolbox]"'
            )

    @property
    @abstractmethod
    def name(self) -> str:
        """Such as "boundary5000"."""

    @abstractmethod
    def made(self, attacks: Any) -> Any:
        """foolbox's attack, of its module `attacks`, with more steps than queries."""

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, index: Tensor | None = None
    ) -> Tensor:
        """As `run`, the images alone."""
        return self.run(model, x, y, index).x_adv

    def run(
        self, model: nn.Module, x: Tensor, y: Tensor, index: Tensor | None = None
    ) -> Attacked:
        """See `rrl_dist.attacks.result.Attack.run`."""
        index = torch.arange(len(x), device=x.device) if index is None else index
        check_inputs(x, y, index)
        x_adv = x.detach().clone(memory_format=torch.contiguous_format)
        if self.ball.eps == 0 or len(x) == 0:
            return Attacked(x_adv, torch.zeros_like(y))
        # Without the clean image's.
        key = (self.seed, self.name)
        terms = Terms(self._attack, self.queries - 1, key, self.micro_batch)
        with borrowed(model, self.micro_batch) as classifier:
            columns = (x, y, index)
            samples, alive = right_from_the_start(classifier, columns, terms.size)
            found = interview(classifier, samples, terms)
        inside = found.wrong & (length(found.x - samples.x) <= self.ball.eps)
        x_adv[alive] = torch.where(as_column(inside, x), found.x, samples.x)
        queries = torch.ones_like(y)
        queries[alive] += found.queries
        return Attacked(x_adv, queries)

    def cost(self, classes: int) -> Passes:
        """See `rrl_dist.attacks.passes.Costed`."""
        return Passes(self.queries, 0)

    def _attack(self, image: Tensor, sample: int, ask: Ask) -> None:
        """One sample, from the first start that is wrong."""
        attacks, model = _foolbox(_Answers(ask))
        index = torch.tensor([sample])
        attempt = torch.zeros_like(index)
        while True:
            start = start_images(image, attempt, seed=self.seed, index=index)
            if ask(start):
                break
            attempt = attempt + 1
        try:
            right = torch.zeros(1, dtype=torch.int64)
            self.made(attacks).run(model, image, right, starting_points=start)
        except (AssertionError, ValueError):
            # It holds answers against those it has had. A model that draws at random,
            # or rounds by place, may answer otherwise; what was found counts.
            return


@dataclass(frozen=True, kw_only=True)
class HopSkipJump(FoolboxAttack):
    """See `FoolboxAttack`.

    Attributes:
        directions: tried for the first normal; the t-th has sqrt(t) times as many.
        gamma: the way to the boundary is halved down to gamma / D^1.5 of itself for D
            numbers in an image.
    """

    directions: int
    gamma: float

    @property
    def name(self) -> str:
        """Such as "hopskipjump5000"."""
        return f"hopskipjump{self.queries}"

    def made(self, attacks: Any) -> Any:
        """See `FoolboxAttack.made`."""
        return attacks.HopSkipJumpAttack(
            steps=self.queries,
            initial_gradient_eval_steps=self.directions,
            gamma=self.gamma,
        )


@dataclass(frozen=True, kw_only=True)
class Boundary(FoolboxAttack):
    """See `FoolboxAttack`.

    Attributes:
        spherical_step, source_step: first lengths of steps across and towards the clean
            image, as shares of the distance.
    """

    spherical_step: float
    source_step: float

    @property
    def name(self) -> str:
        """Such as "boundary5000"."""
        return f"boundary{self.queries}"

    def made(self, attacks: Any) -> Any:
        """See `FoolboxAttack.made`."""
        return attacks.BoundaryAttack(
            steps=self.queries,
            spherical_step=self.spherical_step,
            source_step=self.source_step,
        )


class _Answers(nn.Module):
    """Answers as logits of two classes, of which 0 is the label."""

    def __init__(self, ask: Ask) -> None:
        super().__init__()
        self._ask = ask

    def forward(self, image: Tensor) -> Tensor:
        wrong = self._ask(image)
        return torch.tensor([[float(not wrong), float(wrong)]])


def _foolbox(answers: nn.Module) -> tuple[Any, Any]:
    """Its attacks, and the model as it takes one."""
    with warnings.catch_warnings():
        # An attack that is not used here imports a name that scipy has moved.
        warnings.simplefilter("ignore", DeprecationWarning)
        from foolbox import attacks
        from foolbox.models.pytorch import PyTorchModel
    model = PyTorchModel(answers.eval(), bounds=(0, 1), device="cpu")
    return attacks, cast(Any, model)
