"""Projections of two views, and what objectives make of them step by step."""

import torch
from torch import Tensor


def two_views(n: int, dims: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Correlated rows with different means and scales, [n, dims] each."""
    generator = torch.Generator().manual_seed(seed)
    common, a, b = torch.randn(3, n, dims, generator=generator)
    scale, shift = torch.rand(2, dims, generator=generator)
    return (common + 0.3 * a) * (0.2 + scale) + shift, common + 0.5 * b - shift


def rows(z: Tensor) -> list[list[float]]:
    """As plain numbers, for formulas written out."""
    return [[float(value) for value in row] for row in z.double()]


def losses_on_one_batch(
    objective: torch.nn.Module, batch: object, *, steps: int, lr: float
) -> list[float]:
    """Plain gradient descent on one batch."""
    trained = [p for p in objective.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=lr)
    losses = []
    for _ in range(steps):
        loss = objective(batch)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses
