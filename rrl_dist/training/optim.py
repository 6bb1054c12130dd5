"""Optimizers: parameter groups, SGD, LARS, AdamW."""

from typing import Any, cast

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

Groups = list[dict[str, Any]]


def parameter_groups(
    module: nn.Module, *, weight_decay: float, decay_norm_and_bias: bool
) -> Groups:
    """The trainable parameters, in one or two groups.

    Vectors (biases, norm scales) go to a group without weight decay unless
    `decay_norm_and_bias`; LARS does not adapt the rate of an undecayed group.
    """
    trained = [p for p in module.parameters() if p.requires_grad]
    if decay_norm_and_bias:
        return [{"params": trained, "weight_decay": weight_decay}]
    matrices = [p for p in trained if p.ndim > 1]
    vectors = [p for p in trained if p.ndim <= 1]
    groups: Groups = [{"params": matrices, "weight_decay": weight_decay}]
    return [*groups, {"params": vectors, "weight_decay": 0.0}] if vectors else groups


def sgd(groups: Groups, *, momentum: float, nesterov: bool) -> Optimizer:
    """Stochastic gradient descent."""
    return SGD(groups, lr=0.0, momentum=momentum, nesterov=nesterov)


def adamw(groups: Groups, *, beta1: float, beta2: float) -> Optimizer:
    """AdamW, arXiv:1711.05101."""
    return AdamW(groups, lr=0.0, betas=(beta1, beta2))


def lars(
    groups: Groups, *, momentum: float, trust: float, clip_trust: bool
) -> Optimizer:
    """LARS (arXiv:1708.03888) as in timm.

    Args:
        momentum: of SGD.
        trust: trust coefficient, the layer's rate over |w| / |g|.
        clip_trust: as LARC, never more than the global rate.
    """
    from timm.optim.lars import Lars

    optimizer = Lars(
        groups,
        lr=0.0,
        momentum=momentum,
        trust_coeff=trust,
        trust_clip=clip_trust,
    )
    return cast(Optimizer, optimizer)


def set_learning_rate(optimizer: Optimizer, lr: float) -> None:
    """The same rate in every group."""
    for group in optimizer.param_groups:
        group["lr"] = lr
