"""Number formats of a training step: float32, or autocast to bfloat16 or float16.

Weights, gradients and the optimizer stay float32. float16 holds nothing below 6e-8, so
its loss is scaled up before the backward and its gradient down after it.
"""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from rrl_dist.core.errors import UserError

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = ("fp32", *_AUTOCAST)


def check_precision(precision: str, *, gpu: bool) -> None:
    """Find a precision that cannot be had.

    Raises:
        UserError: an unknown one, or fp16 without a GPU.
    """
    if precision not in PRECISIONS:
        raise UserError(
            f"strategy.precision={precision}; choose {', '.join(PRECISIONS)}"
        )
    if precision == "fp16" and not gpu:
        raise UserError(
            "strategy.precision=fp16 needs a GPU; set strategy.precision=bf16"
        )


def check_clip(clip_grad: float | None) -> None:
    """Find a limit that would stop all learning, or turn it round.

    Raises:
        UserError: it is not above 0.
    """
    if clip_grad is not None and not clip_grad > 0:
        raise UserError(
            f"optim.clip_grad={clip_grad}; set it above 0, or to null for no limit"
        )


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """The context in which a step's forward passes run."""
    return torch.autocast(
        device.type,
        dtype=_AUTOCAST.get(precision, torch.bfloat16),
        enabled=precision in _AUTOCAST,
    )


class LossScale:
    """A power of two that the loss is multiplied by (arXiv:1710.03740, section 3.2).

    Halved, and the step left out, where the gradient is not finite; doubled after
    `patience` steps without. The values are those of `torch.amp.GradScaler`, which
    itself cannot serve: it looks at each worker's share of a sharded gradient alone.
    """

    patience = 2000

    def __init__(self, value: float = 2.0**16) -> None:
        self.value, self.clean = value, 0

    @torch.no_grad()
    def unscale(self, parameters: Iterable[Tensor]) -> bool:
        """Scale the gradients down; returns whether all are finite."""
        gradients = [p.grad for p in parameters if p.grad is not None]
        torch._foreach_mul_(gradients, 1.0 / self.value)
        norms = torch._foreach_norm(gradients)
        return bool(torch.stack(norms).isfinite().all())

    def note(self, *, finite: bool) -> None:
        """Adapt to whether the last gradient was finite.

        Raises:
            FloatingPointError: none was, down to a scale of 1.
        """
        self.clean = self.clean + 1 if finite else 0
        if not finite:
            self.value /= 2
            if self.value < 1:
                raise FloatingPointError("the gradient is not finite at any loss scale")
        elif self.clean == self.patience:
            self.value, self.clean = self.value * 2, 0

    def state(self) -> dict[str, float]:
        """For a checkpoint."""
        return {"value": self.value, "clean": self.clean}

    def load(self, state: dict[str, float]) -> None:
        """Go on from a checkpoint."""
        self.value, self.clean = float(state["value"]), int(state["clean"])
