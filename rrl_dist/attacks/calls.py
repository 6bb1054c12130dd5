"""Attacks as one call, for any model and without a configuration."""

import math
import warnings
from dataclasses import dataclass
from typing import Literal, overload

import torch
from torch import Tensor, nn

from rrl_dist.attacks.balls import L2, Ball
from rrl_dist.attacks.cascade import Cascade, Stage
from rrl_dist.attacks.checks import check_ball, check_device
from rrl_dist.attacks.micro_batches import size_for
from rrl_dist.attacks.precision import in_precision
from rrl_dist.attacks.projected_gradient import PGD
from rrl_dist.attacks.tangent_attack import TangentAttack
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


@dataclass(frozen=True)
class Distances:
    """What `tangent` found.

    Attributes:
        x_adv: [N, ...] the nearest wrong images; the image itself where it is wrong
            from the start, and where none was found.
        distance: [N] Euclidean, in [0, 1] pixels; 0 for what is wrong from the start,
            inf where none was found.
        queries: [N] int64, forward passes.
    """

    x_adv: Tensor
    distance: Tensor
    queries: Tensor


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
    precision: str = ...,
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
    precision: str = ...,
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
    precision: str = "fp32",
    details: bool = False,
) -> Tensor | Details:
    """Attack images with AutoAttack.

    Args:
        model: images [N, ...] in [0, 1] -> logits [N, K], on the device of x; it
            normalizes inside. It is given back as it was.
        x: [N, C, H, W] float32 in [0, 1].
        y: [N] int64 labels.
        ball: the threat model, such as `Linf(8 / 255)`.
        version: "standard", "plus" or "rand".
        seed: of all draws.
        batch_size: images of every call of the model on an accelerator; what is found
            depends on it by rounding alone. On a CPU calls are of 32 images whatever it
            is, so that what is found does not depend on it at all.
        index: [N] int64, which samples these are, for their draws; 0 to N - 1 if None.
        in_turn: the authors' schedule.
        precision: of the attacks' passes, "fp32" or "bf16". Whether an image is right
            or wrong is asked of the model itself all the same.
        details: whether to tell what each component did.

    Returns:
        The attacked images [N, C, H, W], or `Details`.

    Raises:
        UserError: the inputs or the model's logits are not usable.
    """
    check_ball(ball)
    check_device(model, x)
    _tell_mode(model)
    size = size_for(batch_size, x.device)
    attack: Cascade = AutoAttack(
        version=version, ball=ball, seed=seed, micro_batch=size, in_turn=in_turn
    )
    attack = in_precision(attack, precision)
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
    check_ball(ball)
    check_device(model, x)
    _tell_mode(model)
    attack = PGD(
        ball=ball,
        steps=steps,
        relative_step=relative_step,
        restarts=restarts,
        random_start=True,
        seed=seed,
        micro_batch=size_for(batch_size, x.device),
    )
    return attack(model, x, y, index)


def tangent(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    queries: int = 5000,
    directions: int = 100,
    tolerance: float = 1.0,
    seed: int = 0,
    batch_size: int = 256,
    index: Tensor | None = None,
) -> Distances:
    """How far images are from the nearest wrong one, by the model's answers alone.

    Args:
        model, x, y, seed, batch_size, index: see `autoattack`; x of any shape.
        queries, directions, tolerance: see `TangentAttack`.

    Returns:
        images and distances, which are upper bounds.

    Raises:
        UserError: the inputs or the model's logits are not usable.
    """
    check_device(model, x)
    _tell_mode(model)
    # No image in [0, 1] is farther.
    ball = L2(math.sqrt(max(math.prod(x.shape[1:]), 1)))
    attack = TangentAttack(
        ball=ball,
        queries=queries,
        directions=directions,
        tolerance=tolerance,
        seed=seed,
        micro_batch=size_for(batch_size, x.device),
    )
    found = attack.run(model, x, y, index)
    distance = ball.distance(found.x_adv, x)
    # One query says that it is wrong from the start.
    none = (distance == 0) & (found.queries > 1)
    distance = torch.where(none, torch.inf, distance)
    return Distances(found.x_adv, distance, found.queries)


def _tell_mode(model: nn.Module) -> None:
    """Whoever forgot `model.eval()` should know what was attacked. Of any module, since
    one of their own may answer otherwise while it is trained, too."""
    for name, module in model.named_modules():
        if module.training:
            warnings.warn(
                f"{name or 'the model'} is in train mode; the model is attacked in "
                "eval mode, and given back as it was",
                stacklevel=3,
            )
            return
