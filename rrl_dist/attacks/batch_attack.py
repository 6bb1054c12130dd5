"""An attack that takes as many steps of every image: a micro-batch at a time."""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from rrl_dist.attacks.balls import Ball
from rrl_dist.attacks.checks import check_inputs
from rrl_dist.attacks.classifier import Classifier, borrowed
from rrl_dist.attacks.micro_batches import in_micro_batches
from rrl_dist.attacks.passes import Passes
from rrl_dist.attacks.result import Attacked
from rrl_dist.core.errors import UserError

# The model, x [M, ...], y [M] and index [M] of a micro-batch -> images [M, ...].
Batch = Callable[[Classifier, Tensor, Tensor, Tensor], tuple[Tensor]]


class Attack(Protocol):
    """What `attack_in_batches` asks an attack for."""

    @property
    def ball(self) -> Ball:
        """The threat model."""

    @property
    def micro_batch(self) -> int:
        """Images of every call of the model."""

    def cost(self, classes: int) -> Passes:
        """See `rrl_dist.attacks.passes.Costed`."""


def attack_in_batches(
    attack: Attack,
    model: nn.Module,
    columns: tuple[Tensor, Tensor, Tensor | None],
    batch: Batch,
) -> Attacked:
    """`Attack.run` of an attack whose images all take the same number of steps.

    Args:
        attack: whose `cost` is what each image takes.
        model: the model.
        columns: x, y and index, as `Attack.run` takes them.
        batch: the attack on one micro-batch; its rows must not mix.
    """
    x, y, given = columns
    index = torch.arange(len(x), device=x.device) if given is None else given
    check_inputs(x, y, index)
    if attack.ball.eps == 0 or len(x) == 0:
        return Attacked(x.detach().clone(), torch.zeros_like(y))
    with borrowed(model) as classifier:
        of_model = partial(batch, classifier)
        (x_adv,) = in_micro_batches(of_model, x, y, index, size=attack.micro_batch)
    return Attacked(x_adv, torch.full_like(y, attack.cost(0).forward))


def check_step(name: str, relative_step: float) -> None:
    """A step is a share of the radius.

    Raises:
        UserError: if it is not above 0.
    """
    if not relative_step > 0:
        raise UserError(f"{name} has relative_step={relative_step}; set it > 0")
