"""Batch norm in eval mode as part of the convolution before it.

What follows what is seen in one forward, not read from the code, so that any module
will do. That a convolution's output goes nowhere else is not seen: whoever folds must
hold the outcome against the model itself.
"""

from collections import Counter
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

BatchNorm = nn.modules.batchnorm._BatchNorm
# No subclasses: timm's, for one, hold an activation as well.
BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm)


def fold(model: nn.Module, x: Tensor) -> int:
    """Fold in place what can be folded; returns how many batch norms.

    Args:
        model: in eval mode; what is folded is float32.
        x: [N, C, H, W] images for the forward.
    """
    pairs = _pairs(model, x)
    for conv, norm in pairs:
        _absorb(conv, norm)
    gone = {id(norm) for _, norm in pairs}
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if id(child) in gone:
                setattr(parent, name, nn.Identity())
    return len(pairs)


def _pairs(model: nn.Module, x: Tensor) -> list[tuple[nn.Conv2d, BatchNorm]]:
    """Each batch norm with the convolution whose output it was given, where both were
    called once."""
    made: dict[int, tuple[nn.Conv2d, Tensor]] = {}
    found: list[tuple[nn.Conv2d, BatchNorm]] = []
    calls: Counter[int] = Counter()

    def convolved(
        conv: nn.Conv2d, module: nn.Module, args: object, output: Tensor
    ) -> None:
        calls[id(conv)] += 1
        # With the output itself: the place of a freed one may be taken by another.
        made[id(output)] = (conv, output)

    def normalized(
        norm: BatchNorm, module: nn.Module, args: tuple[Tensor, ...]
    ) -> None:
        calls[id(norm)] += 1
        if args and id(args[0]) in made:
            found.append((made[id(args[0])][0], norm))

    handles = []
    for module in model.modules():
        if type(module) is nn.Conv2d:
            seen = partial(convolved, module)
            handles.append(module.register_forward_hook(seen))
        elif type(module) in BATCH_NORMS:
            met = partial(normalized, cast(BatchNorm, module))
            handles.append(module.register_forward_pre_hook(met))
    try:
        model(x)
    finally:
        for handle in handles:
            handle.remove()
    return [pair for pair in found if _fits(*pair, calls)]


def _fits(conv: nn.Conv2d, norm: BatchNorm, calls: Counter[int]) -> bool:
    once = calls[id(conv)] == calls[id(norm)] == 1
    plain = conv.weight.dtype == torch.float32
    return once and plain and not norm.training and norm.running_mean is not None


def _absorb(conv: nn.Conv2d, norm: BatchNorm) -> None:
    """In float64, so that one rounding is all that it costs."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    shift = -norm.running_mean.double()
    if conv.bias is not None:
        shift = shift + conv.bias.double()
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = shift * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    weight = conv.weight.double() * scale[:, None, None, None]
    conv.weight = nn.Parameter(weight.float(), requires_grad=False)
    conv.bias = nn.Parameter(shift.float(), requires_grad=False)
