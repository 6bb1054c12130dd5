"""Cached feature gradients: a large batch's exact gradient in a small batch's memory.

Gao et al., arXiv:2101.06983 (GradCache): each part of the batch passes without graph, a
loss over all features gives each feature its gradient, and each part passes once more
with it. A loss that couples samples so sees the whole batch, which accumulating the
losses of parts would not give it.

Here the second pass is recomputation by `torch.utils.checkpoint`: to autograd it is one
backward of one graph, so a strategy's hooks fire once, and an objective need not know.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def in_parts(function: Callable[[Tensor], Tensor], x: Tensor, size: int) -> Tensor:
    """`function(x)`, with the activations of `size` rows in memory at a time.

    Args:
        function: treats each row alone, so no batch norm in train mode.
        x: [N, ...].
        size: rows of a part, at least 1.
    """
    parts = torch.split(x, size)
    if not torch.is_grad_enabled():
        return torch.cat([function(part) for part in parts])
    # No check of shapes: under ZeRO-3 a weight is empty outside the pass it is used in.
    return torch.cat(
        [
            checkpoint(function, part, use_reentrant=False, determinism_check="none")
            for part in parts
        ]
    )
