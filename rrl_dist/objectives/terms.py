"""Measures of projections that several methods share, over the global batch."""

import torch
import torch.nn.functional as F
from torch import Tensor

from rrl_dist.core.collectives import all_mean
from rrl_dist.core.errors import UserError


def check_temperature(temperature: float) -> None:
    """Raises `UserError` for one that turns the order of similarities round, or has
    none."""
    if not temperature > 0:
        raise UserError(f"objective.temperature={temperature}; set more than 0")


def products(a: Tensor, b: Tensor) -> Tensor:
    """a: [N, D], b: [K, D] -> the rows' inner products, [N, K] in float32 under any
    autocast, with gradients into both."""
    # Near 1, where partners are, bf16 has steps of 0.4 %, and a temperature divides.
    with torch.autocast(a.device.type, enabled=False):
        return a.float() @ b.float().T


def divergence(logits: Tensor, moved: Tensor) -> Tensor:
    """logits, moved: [N, K] -> KL(softmax(logits) || softmax(moved)) in nats, [N], with
    gradients into both; 0 where they are equal, never negative."""
    log_p, log_q = logits.float().log_softmax(1), moved.float().log_softmax(1)
    each = F.kl_div(log_q, log_p, reduction="none", log_target=True)
    # The sum has terms of both signs, and may round below 0. Its gradient counts there
    # too: the attack begins where the divergence is hardly more than a rounding.
    total = each.sum(1)
    return total + (total.clamp_min(0) - total).detach()


def mean_cosine(p: Tensor, z: Tensor) -> Tensor:
    """p, z: [N, D], row i of both of one sample -> mean cosine of the rows, a scalar in
    float32, with gradients into both."""
    return all_mean(F.cosine_similarity(p.float(), z.float(), dim=1).mean())


@torch.no_grad()
def spread(z: Tensor) -> Tensor:
    """Standard deviation of the unit rows of z, [N, D], as a mean over columns: about
    1 / sqrt(D) for directions all over the sphere, 0 where all are one (collapse)."""
    unit = F.normalize(z.float(), dim=1)
    mean = all_mean(unit.mean(0))
    return all_mean((unit - mean).square().mean(0)).sqrt().mean()
