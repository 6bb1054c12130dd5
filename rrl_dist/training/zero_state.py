"""The optimizer's state under ZeRO, by parameter, as one process would have it.

DeepSpeed's own checkpoints cannot serve: reading them unpickles, they are bound to the
number of workers and the stage, and their conversion ("universal") knows the moments of
Adam only and drops SGD's momentum. Here a parameter's part of the state is found in the
flat tensors that the base optimizer steps on. The names with an underscore are those of
DeepSpeed 0.19; tests compare with plain torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rrl_dist.core.collectives import rank
from rrl_dist.training.checkpoint_parts import piece

Groups = Sequence[Sequence[nn.Parameter]]


@dataclass(frozen=True)
class Piece:
    """Where this worker keeps its part of a parameter.

    Attributes:
        flat: the tensor that the base optimizer steps on.
        start: of the part in `flat`, in elements.
        offset: of the part in the flattened parameter.
        count: elements of the part; 0 where this worker has none.
    """

    flat: Tensor
    start: int
    offset: int
    count: int


def _piece(zero: Any, group: int, parameter: nn.Parameter) -> Piece:
    if hasattr(parameter, "ds_id"):  # stage 3: each parameter is cut over the workers
        place, start, size = zero.grad_position[zero.get_param_id(parameter)]
        rank = zero._get_param_partition_rank(parameter)
        offset, count = share(_shape(parameter).numel(), size, rank)
        return Piece(zero.fp32_partitioned_groups_flat[place], start, offset, count)
    flat = zero.single_partition_of_fp32_groups[group]
    mapped = parameter._hp_mapping  # type: ignore[attr-defined]
    if mapped is None:
        return Piece(flat, 0, 0, 0)
    here, there = mapped.hp_fragment_address, mapped.lp_fragment_address
    return Piece(flat, here.start, there.start, here.numel)


def share(elements: int, size: int, rank: int) -> tuple[int, int]:
    """Offset and count of a rank's elements, where shares of `size` end in padding."""
    offset = min(rank * size, elements)
    return offset, min(size, elements - offset)


def _shape(parameter: Tensor) -> torch.Size:
    return getattr(parameter, "ds_shape", parameter.shape)


def held_of(value: Tensor) -> Tensor:
    """This worker's [n] elements of a weight that stage 3 has cut up; others whole."""
    if not hasattr(value, "ds_tensor"):
        return value
    own: Tensor = value.ds_tensor
    _, count = share(_shape(value).numel(), own.numel(), rank())
    return own.view(-1).narrow(0, 0, count)


def in_part(value: Tensor) -> Any:
    """A weight or buffer as this worker's part of a checkpoint has it."""
    own = held_of(value)
    if own is value:
        return value
    size = value.ds_tensor.numel()  # type: ignore[attr-defined]
    offset, _ = share(_shape(value).numel(), size, rank())
    return piece(own, offset, _shape(value))


def pieces(zero: Any, groups: Groups) -> dict[str, Any]:
    """This worker's pieces of the state dict that the base optimizer would have alone.

    Args:
        zero: DeepSpeed's optimizer of stage 1, 2 or 3.
        groups: the parameters of each group, in the optimizer's order.
    """
    base, states, described, number = zero.optimizer, {}, [], 0
    for place, (group, parameters) in enumerate(
        zip(base.param_groups, groups, strict=True)
    ):
        for at, parameter in enumerate(parameters):
            where = _piece(zero, place, parameter)
            state = _own_state(base, where, _shape(parameter))
            if state:
                states[number + at] = state
        numbers = list(range(number, number + len(parameters)))
        options = {k: v for k, v in group.items() if k != "params"}
        described.append({**options, "params": numbers})
        number += len(parameters)
    return {"state": states, "param_groups": described}


def _own_state(base: Any, where: Piece, shape: torch.Size) -> dict[str, Any]:
    own: dict[str, Any] = {}
    for key, value in base.state.get(where.flat, {}).items():
        if not _is_flat(value, where):
            own[key] = value  # a step count, the same everywhere
        elif where.count:
            values = value.narrow(0, where.start, where.count)
            own[key] = piece(values, where.offset, shape)
    return own


def scatter(zero: Any, groups: Groups, state: dict[str, Any]) -> None:
    """Give this worker its part of a whole state, whatever number of workers left it.

    Args:
        zero, groups: as for `pieces`.
        state: an optimizer's state dict of one process.
    """
    base, number = zero.optimizer, 0
    base.state.clear()
    for place, parameters in enumerate(groups):
        options = state["param_groups"][place]
        base.param_groups[place].update(
            {k: v for k, v in options.items() if k != "params"}
        )
        for parameter in parameters:
            piece = _piece(zero, place, parameter)
            for key, value in state["state"].get(number, {}).items():
                _place(base.state[piece.flat], key, value, piece, _shape(parameter))
            number += 1


def _place(
    kept: dict[str, Any], key: str, value: Any, piece: Piece, shape: torch.Size
) -> None:
    # A parameter of no dimensions has moments that look like a count.
    if key == "step" or not isinstance(value, Tensor) or value.shape != shape:
        kept[key] = value.clone() if isinstance(value, Tensor) else value
        return
    if key not in kept:
        kept[key] = torch.zeros_like(piece.flat)
    part = value.reshape(-1).narrow(0, piece.offset, piece.count)
    kept[key].narrow(0, piece.start, piece.count).copy_(part)


def forget_gradients(zero: Any) -> None:
    """After a step, zero the gradients that it went by.

    Stage 3 keeps them, as does any stage with its optimizer's state offloaded: a weight
    that the next step does not use would move by this one's gradient once more.
    """
    if hasattr(zero, "grad_partitions_flat_buffer"):  # stage 3
        zero.grad_partitions_flat_buffer.zero_()
        flats = zero.fp32_partitioned_groups_flat
    else:
        flats = zero.single_partition_of_fp32_groups
    for flat in flats:
        if flat.grad is not None:
            flat.grad.zero_()


def _is_flat(value: Any, piece: Piece) -> bool:
    return isinstance(value, Tensor) and value.shape == piece.flat.shape
