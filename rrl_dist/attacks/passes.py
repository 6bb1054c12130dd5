"""How many images have gone through a model, and how many gradients have come back."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

from torch import Tensor, nn


@dataclass
class Passes:
    """Counts of images, those included that only fill up a call.

    Attributes:
        forward: images that the model was called with.
        backward: images whose gradient was asked for, each time it was.
    """

    forward: int = 0
    backward: int = 0


@runtime_checkable
class Costed(Protocol):
    """An attack that knows what it takes."""

    def cost(self, classes: int) -> Passes:
        """Passes of one sample that stays right, with a model of so many classes."""


@contextmanager
def counted(model: nn.Module) -> Iterator[Passes]:
    """Count the passes of a model whose first output dimension is the image."""
    passes = Passes()

    def returned(grad: Tensor) -> None:
        passes.backward += len(grad)

    def called(module: nn.Module, args: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim > 0:
            passes.forward += len(output)
            if output.requires_grad:
                # As any: torch does not type it.
                cast(Any, output).register_hook(returned)

    handle = model.register_forward_hook(called)
    try:
        yield passes
    finally:
        handle.remove()
