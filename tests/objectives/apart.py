"""Distances of features written out, one number at a time, with gradients."""

from collections.abc import Callable

import torch
from torch import Tensor

Literal = Callable[[Tensor, Tensor, Tensor], Tensor]


def literal_scale(h: Tensor) -> Tensor:
    """Root of the mean squared distance of the rows of h, [N, D], from their mean."""
    n, dims = h.shape
    total = h.new_zeros(())
    for j in range(dims):
        mean = sum(h[i, j] for i in range(n)) / n
        total = total + sum((h[i, j] - mean) ** 2 for i in range(n))
    return (total / n) ** 0.5


def literal_l2(a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    """Of two vectors."""
    return sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5 / scale


def literal_cosine(a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    """Of two vectors."""
    product = sum(x * y for x, y in zip(a, b, strict=True))
    lengths = sum(x * x for x in a) * sum(y * y for y in b)
    return 1 - product / lengths**0.5


def literal_kl(a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
    """Of two vectors: the first is where the mean is taken."""
    width = scale / len(a) ** 0.5
    p, q = ([torch.exp(x / width) for x in v] for v in (a, b))
    total = a.new_zeros(())
    for x, y in zip(p, q, strict=True):
        total = total + x / sum(p) * torch.log((x / sum(p)) / (y / sum(q)))
    return total


LITERAL: dict[str, Literal] = {
    "l2": literal_l2,
    "cosine": literal_cosine,
    "kl": literal_kl,
}


def literal_distances(name: str, moved: Tensor, h: Tensor) -> Tensor:
    """moved, h: [N, D] -> [N] in float64."""
    moved, h = moved.double(), h.double()
    scale, one = literal_scale(h), LITERAL[name]
    return torch.stack([one(a, b, scale) for a, b in zip(moved, h, strict=True)])
