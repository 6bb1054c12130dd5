"""AutoAttack and PGD as one call, for any model and without a configuration."""

from dataclasses import dataclass
from typing import Literal, overload

from torch import Tensor, nn

from rrl_dist.attacks.balls import Ball
from rrl_dist.attacks.cascade import Stage
from rrl_dist.attacks.projected_gradient import PGD
from rrl_dist.attacks.versions import AutoAttack


@dataclass(frozen=True)
class Details:
    """What `autoattack` found.

    Attributes:
        x_adv: [N, ...] images.
        robust: [N] bool, whether none of the attacks broke the image.
        stages: what each component did, "clean" first.
    """

    x_adv: Tensor
    robust: Tensor
    stages: tuple[Stage, ...]


@overload
def autoattack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    ball: Ball,
    version: str = ...,
    seed: int = ...,
    batch_size: int = ...,
    index: Tensor | None = ...,
    in_turn: bool = ...,
    details: Literal[False] = ...,
) -> Tensor: ...
@overload
def autoattack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    ball: Ball,
    version: str = ...,
    seed: int = ...,
    batch_size: int = ...,
    index: Tensor | None = ...,
    in_turn: bool = ...,
    details: Literal[True],
) -> Details: ...
def autoattack(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    ball: Ball,
    version: str = "standard",
    seed: int = 0,
    batch_size: int = 256,
    index: Tensor | None = None,
    in_turn: bool = False,
    details: bool = False,
) -> Tensor | Details:
    """Attack images with AutoAttack.

    Args:
        model: images [N, ...] in [0, 1] -> logits [N, K], on the device of x; it
            normalizes inside. It is given back as it was.
        x: [N, C, H, W] float32 in [0, 1].
        y: [N] int64 labels.
        ball: the threat model, such as `Linf(8 / 255)`.
        version: "standard" or "plus".
        seed: of all draws.
        batch_size: images of every call of the model; what is found depends on it by
            rounding alone, and on nothing else about the call.
        index: [N] int64, which samples these are, for their draws; 0 to N - 1 if None.
        in_turn: the authors' schedule.
        details: whether to tell what each component did.

    Returns:
        The attacked images [N, C, H, W], or `Details`.

    Raises:
        UserError: the inputs or the model's logits are not usable.
    """
    attack = AutoAttack(
        version=version, ball=ball, seed=seed, micro_batch=batch_size, in_turn=in_turn
    )
    found, stages = attack.stages(model, x, y, index)
    if not details:
        return found.x_adv
    broken = stages[0].wrong.clone()
    for stage in stages[1:]:
        broken |= stage.wrong
    return Details(found.x_adv, ~broken, tuple(stages))


def pgd(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    ball: Ball,
    steps: int = 20,
    relative_step: float = 0.25,
    restarts: int = 1,
    seed: int = 0,
    batch_size: int = 256,
    index: Tensor | None = None,
) -> Tensor:
    """Attack images with PGD from random starts; arguments as for `autoattack`.

    Args:
        model, x, y, ball, seed, batch_size, index: see `autoattack`.
        steps: gradient steps of a restart.
        relative_step: length of a step as a share of the radius; 2/255 at 8/255.
        restarts: runs per sample.

    Returns:
        The attacked images [N, ...].

    Raises:
        UserError: the inputs or the model's logits are not usable.
    """
    attack = PGD(
        ball=ball,
        steps=steps,
        relative_step=relative_step,
        restarts=restarts,
        random_start=True,
        seed=seed,
        micro_batch=batch_size,
    )
    return attack(model, x, y, index)
