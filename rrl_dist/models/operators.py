"""The linear maps that a network's layers are, and their largest singular values.

A convolution is a linear map from images to images, and its largest singular value is
that of this map: it depends on the size of the image, on stride, padding, dilation and
groups, and is not that of the kernel reshaped to a matrix. Power iteration with the
convolution and its transpose (Farnia, Zhang, Tse, ICLR 2019, arXiv:1811.07457) finds it
without the matrix.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrl_dist.core.errors import UserError
from rrl_dist.core.modes import evaluating
from rrl_dist.core.randomness import torch_stream

# Parameters of more than one dimension that are added to features, not multiplied.
_ADDED = ("pos_embed", "relative_position_bias_table")


@dataclass(frozen=True)
class Operator:
    """A layer without its bias, as the network applies it: the linear map A.

    Attributes:
        layer: a convolution or linear layer.
        shape: of one input, [C, H, W] or [D].
    """

    layer: nn.Conv2d | nn.Linear
    shape: tuple[int, ...]

    def __call__(self, v: Tensor) -> Tensor:
        """A v, with gradient to v and to the layer's weight; v has `shape`."""
        if hasattr(self.layer.weight, "ds_id"):
            # DeepSpeed may have cut this weight up: whole in the layer's own pass only.
            return self._through_layer(v)
        return self.by(self.layer.weight, v)

    def by(self, weight: Tensor, v: Tensor) -> Tensor:
        """A v for another weight of the layer's shape."""
        if isinstance(self.layer, nn.Linear):
            image = F.linear(v, weight)
        else:
            image = self.layer._conv_forward(v[None], weight, None)[0]
        return image

    def _through_layer(self, v: Tensor) -> Tensor:
        """A v by a call of the layer, whose bias the image of 0 takes out."""
        if self.layer.bias is None:
            return cast(Tensor, self.layer(v[None])[0])
        image, bias = self.layer(torch.stack([v, torch.zeros_like(v)]))
        return cast(Tensor, image - bias)

    def normal(self, weight: Tensor, v: Tensor) -> Tensor:
        """A^T A v, without graph."""
        with torch.enable_grad():
            x = v.detach().requires_grad_()
            image = self.by(weight.detach(), x)
        # The gradient of <A x, y> is A^T y: the adjoint of any padding and stride.
        (product,) = torch.autograd.grad(image, x, image.detach())
        return product


def operators(encoder: nn.Module, *, image_size: int) -> dict[str, Operator]:
    """Every layer with a weight between an image and the features, by its name.

    Found by passing a black image, which leaves modes and buffers as they were.

    Args:
        encoder: [N, 3, H, W] -> features.
        image_size: H and W, in pixels.

    Raises:
        UserError: a layer multiplies by a weight in a way that is not known here, or
            is used for inputs of two sizes.
    """
    found: dict[str, Operator] = {}
    device = next(encoder.parameters()).device
    black = torch.zeros(1, 3, image_size, image_size, device=device)
    with evaluating(encoder), torch.no_grad(), _noting(encoder, found):
        encoder(black)
    return found


@contextmanager
def _noting(encoder: nn.Module, found: dict[str, Operator]) -> Iterator[None]:
    """Inside, each layer that is called is entered into `found`."""
    names = {module: name for name, module in encoder.named_modules()}

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        name = names[module]
        operator = _operator(module, name, args)
        if operator is not None and found.setdefault(name, operator) != operator:
            raise UserError(
                f"the model uses {name} for inputs of two sizes, so it has no one "
                "spectral norm; choose another model"
            )

    hooks = [module.register_forward_pre_hook(note) for module in names]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _operator(module: nn.Module, name: str, args: tuple[Any, ...]) -> Operator | None:
    """What a called module is, None for one without a matrix of its own.

    Raises:
        UserError: it has one and is no plain convolution or linear layer.
    """
    own = dict(module.named_parameters(recurse=False))
    matrices = [
        key
        for key, value in own.items()
        if value.squeeze().ndim > 1 and key not in _ADDED
    ]
    if isinstance(module, nn.Conv2d | nn.Linear) and _is_plain(module):
        dims = 3 if isinstance(module, nn.Conv2d) else 1
        return Operator(module, tuple(args[0].shape[-dims:]))
    if matrices or isinstance(module, nn.Conv2d | nn.Linear):
        raise UserError(
            f"spectral norms are not known of {name}, a {type(module).__name__}; "
            "choose a model of plain convolutions and linear layers, such as resnet18"
        )
    return None


def _is_plain(module: nn.Conv2d | nn.Linear) -> bool:
    """Whether it computes what its class in torch does, from a weight of its own."""
    kind = type(module)
    if isinstance(module, nn.Linear):
        same = kind.forward is nn.Linear.forward
    else:
        same = (
            kind.forward is nn.Conv2d.forward
            and kind._conv_forward is nn.Conv2d._conv_forward
        )
    return same and "weight" in dict(module.named_parameters(recurse=False))


def sigmas(
    encoder: nn.Module, *, image_size: int, tolerance: float, most: int, seed: int
) -> dict[str, float]:
    """The largest singular value of each layer up to the features, by its name.

    Args:
        encoder: with whole weights.
        image_size: in pixels.
        tolerance, most, seed: as for `top_singular_value`.
    """
    found = operators(encoder, image_size=image_size)
    return {
        name: top_singular_value(
            operator, tolerance=tolerance, most=most, seed=seed, key=name
        )
        for name, operator in found.items()
    }


@torch.no_grad()
def top_singular_value(
    operator: Operator, *, tolerance: float, most: int, seed: int, key: str
) -> float:
    """The largest singular value, by Lanczos' method on A^T A in float64.

    It approaches from below, and much faster than power iteration, which takes hundreds
    of steps where the largest values are near one another, as those of a convolution
    are. Every new direction is made orthogonal to all before it.

    Args:
        operator: with a whole weight.
        tolerance: largest residual |A^T A v - s^2 v| over s^2 for the unit vector v
            found: s^2 is as near as that to the square of a singular value, of the
            largest one where the tolerance is small, such as 1e-3.
        most: steps, and vectors of the input's size held at a time.
        seed, key: of the random start.
    """
    weight = operator.layer.weight.double()
    start = torch.randn(operator.shape, generator=torch_stream(seed, "sigma", key))
    direction = start.to(weight) / start.norm()
    basis: list[Tensor] = []
    small = torch.zeros(most + 1, most + 1, dtype=torch.float64)
    value = 0.0
    for step in range(min(most, start.numel())):
        basis.append(direction)
        product = operator.normal(weight, direction)
        small[step, step] = torch.sum(product * direction)
        rest = _orthogonal(product, basis)
        length = float(rest.norm())
        values, vectors = torch.linalg.eigh(small[: step + 1, : step + 1])
        value = float(values[-1])
        if length * abs(float(vectors[-1, -1])) <= tolerance * value:
            break
        small[step, step + 1] = small[step + 1, step] = length
        direction = rest / length
    return math.sqrt(max(value, 0.0))


def _orthogonal(x: Tensor, basis: list[Tensor]) -> Tensor:
    """x without its part in the span of orthonormal vectors."""
    for _ in range(2):  # once leaves rounding errors that grow
        for b in basis:
            x = x - torch.sum(x * b) * b
    return x
