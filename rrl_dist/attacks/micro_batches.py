"""One fixed shape for every call of a model.

Kernels are chosen by shape, and another kernel rounds otherwise. At one shape a
sample's logits and gradient do not depend on its companions, so with every call padded
to that shape results are the same to the last bit for any batch size and order.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from rrl_dist.attacks.checks import check_counts

# On a CPU more images a call gain no speed, and fewer leave less to be filled up; with
# fewer, though, torch's kernels begin to round by place: matrix products below 16 rows,
# sigmoids where their elements are no multiple of 32.
ON_CPU, ELSEWHERE = 32, 256


def call_size(device: torch.device, wanted: int | None = None) -> int:
    """Images of every call of a model on that device, as `wanted` or as is usual."""
    if wanted is not None:
        return wanted
    return ON_CPU if device.type == "cpu" else ELSEWHERE


def size_for(batch_size: int, device: torch.device) -> int:
    """Images of every call of a model for a caller's batch size. On a CPU it is one
    number whatever is asked for, so that what is found does not depend on it.

    Raises:
        UserError: if it is below 1.
    """
    check_counts(batch_size=batch_size)
    return call_size(device, None if device.type == "cpu" else batch_size)


def in_micro_batches(
    function: Callable[..., tuple[Tensor, ...]], *columns: Tensor, size: int
) -> tuple[Tensor, ...]:
    """Apply `function` to all rows, `size` of them at a time.

    Args:
        function: takes as many tensors as there are `columns`, each of exactly `size`
            rows, and returns tensors of `size` rows. Its rows must not mix.
        columns: tensors of N rows each; their layout in memory does not matter.
        size: rows of a call. A short one is filled up with its last row, or with
            zeros if there is none at all.

    Returns:
        What `function` returns, N rows each, without the filling.
    """
    count = len(columns[0])
    if count == 0:
        empty = (column.new_zeros(size, *column.shape[1:]) for column in columns)
        return tuple(result[:0] for result in function(*empty))
    parts = [
        function(*(_rows(column, start, size) for column in columns))
        for start in range(0, count, size)
    ]
    return tuple(torch.cat(results)[:count] for results in zip(*parts, strict=True))


def _rows(column: Tensor, start: int, size: int) -> Tensor:
    """A fresh contiguous copy: alignment and layout may change a kernel's rounding."""
    rows = torch.arange(start, start + size, device=column.device)
    return column.index_select(0, rows.clamp_max(len(column) - 1))
