"""Projected gradient ascent, for inner maximizations and for PGD alike.

Madry et al. 2018, arXiv:1706.06083, §2.1.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from rrl_dist.attacks.balls import Ball
from rrl_dist.core.errors import UserError

Value = Callable[[Tensor], Tensor]


def check_attack(*, steps: int, relative_step: float) -> None:
    """Raises `UserError` for an inner attack that would not attack."""
    if steps < 1:
        raise UserError(f"the inner attack has steps={steps}; set at least 1")
    if not relative_step > 0:
        raise UserError(
            f"the inner attack has relative_step={relative_step}; set more than 0"
        )


def value_and_gradient(value: Value, x: Tensor) -> tuple[Tensor, Tensor]:
    """Values at x and the gradient of their sum, both detached.

    Works under `torch.no_grad` too. Only the gradient with respect to x is computed:
    nothing else gets a `.grad`. It is zero if the values do not depend on x.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        values = value(x)
        if not values.requires_grad:
            return values, torch.zeros_like(x)
        (grad,) = torch.autograd.grad(
            values.sum(), x, allow_unused=True, materialize_grads=True
        )
    return values.detach(), grad


def ascend(
    value: Value,
    start: Tensor,
    center: Tensor,
    *,
    ball: Ball,
    steps: int,
    step_size: float,
) -> Tensor:
    """`steps` times a step uphill and back into the ball.

    The last image is given back, as in published codes, not the highest, which would
    cost two more values. With the settings of configs/objective no value was seen to
    end below the clean one's; with steps longer than the radius, or one short step, it
    may.

    Args:
        value: [N, ...] images -> [N] values to raise (or their sum). Modes and
            frozen parameters are the caller's affair. It is called `steps` times.
        start: [N, ...] first images; they need not be in the ball.
        center: [N, ...] in [0, 1], the clean images.
        ball: the threat model; after a step all images are in it and in [0, 1].
        steps: the same number for all samples and workers.
        step_size: length of a step in the ball's norm, in [0, 1] pixels.

    Returns:
        [N, ...] images without a graph. A sample whose gradient is zero or NaN only
        stays where it is.
    """
    x = start.detach()
    for _ in range(steps):
        _, grad = value_and_gradient(value, x)
        x = ball.project(x + step_size * ball.steepest(grad), center.detach())
    return x
