"""What an attack is, what it gives back, and which image it keeps."""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from rrl_dist.attacks.balls import Ball, as_column


@dataclass(frozen=True)
class Attacked:
    """An attack's outcome.

    Attributes:
        x_adv: [N, ...] float32, in the ball and in [0, 1].
        queries: [N] int64, forward passes that each sample took.
    """

    x_adv: Tensor
    queries: Tensor


class Attack(Protocol):
    """Finds images in a ball that a model gets wrong.

    A sample's outcome depends on the model, its image, label and index, and on the
    attack's own settings: not on the other samples of the call. The model is given
    back as it was: modes, buffers, `requires_grad`, no parameter gradient.
    """

    @property
    def name(self) -> str:
        """Short name, such as "pgd20"; part of the key of its randomness."""

    @property
    def ball(self) -> Ball:
        """The threat model."""

    @property
    def seed(self) -> int:
        """Seed of its randomness."""

    def run(
        self, model: nn.Module, x: Tensor, y: Tensor, index: Tensor | None = None
    ) -> Attacked:
        """Attack x: [N, ...] float32 in [0, 1] with labels y: [N] int64.

        `index` [N] int64 says which samples these are; without it they are
        0 ... N - 1.

        Raises:
            UserError: if the inputs or the model's logits are not usable.
        """

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, index: Tensor | None = None
    ) -> Tensor:
        """`run(...).x_adv`."""


@runtime_checkable
class Particular(Protocol):
    """An attack that does not take images of every shape."""

    def check_shape(self, x: Tensor) -> None:
        """Images [N, ...].

        Raises:
            UserError: if it cannot attack them.
        """


class Best(NamedTuple):
    """Per sample the strongest image so far.

    Attributes:
        x: [N, ...] images.
        value: [N] what the attack raises, at x; -inf instead of NaN.
        wrong: [N] bool, whether the model is wrong at x.
    """

    x: Tensor
    value: Tensor
    wrong: Tensor

    @classmethod
    def of(cls, x: Tensor, value: Tensor, wrong: Tensor) -> "Best":
        """The first candidates; NaN values rank below all others."""
        return cls(x, value.nan_to_num(nan=-torch.inf), wrong)

    def offer(self, x: Tensor, value: Tensor, wrong: Tensor) -> "Best":
        """Take x where it is wrong and the old one is not, or as wrong but higher."""
        value = value.nan_to_num(nan=-torch.inf)
        higher = (wrong == self.wrong) & (value > self.value)
        better = (wrong & ~self.wrong) | higher
        return Best(
            torch.where(as_column(better, x), x, self.x),
            torch.where(better, value, self.value),
            wrong | self.wrong,
        )
