"""A worker's part of the training state, and the whole state out of all parts.

Of tensors that are cut over the workers a part has pieces, which know where they
belong; what is whole is taken from the first part that has it. So neither the number of
parts nor the strategy that cut them is left in the state that is assembled.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from rrl_dist.core.storage import atomic_path

_PIECE = {"piece of", "offset", "values"}


@dataclass(frozen=True)
class Part:
    """What one worker adds to a checkpoint.

    Attributes:
        state: nested dicts of tensors, `piece`s and plain values, on the CPU and shared
            with nothing that the next step changes.
        number: of this part, from 0.
        of: how many there are.
    """

    state: dict[str, Any]
    number: int
    of: int


def piece(values: Tensor, offset: int, shape: Sequence[int]) -> dict[str, Any]:
    """A part's piece of a tensor of `shape`: [n] elements of it, flattened, from
    `offset` on."""
    return {"piece of": list(shape), "offset": offset, "values": values}


def is_piece(value: Any) -> bool:
    """Whether a value of a part is what `piece` has made."""
    return isinstance(value, dict) and value.keys() == _PIECE


def on_host(state: Any) -> Any:
    """A copy in plain dicts and lists, its tensors on the CPU with memory of their
    own."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, Mapping):
        return {key: on_host(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(on_host(value) for value in state)
    return state


def assemble(parts: Sequence[Any]) -> Any:
    """The whole state of all parts; its tensors share no memory with them.

    Raises:
        ValueError: pieces are missing.
    """
    first = parts[0]
    if not isinstance(first, dict):
        return on_host(first)
    if is_piece(first):
        return _joined(parts)
    keys = dict.fromkeys(key for part in parts for key in part)
    return {key: assemble([part[key] for part in parts if key in part]) for key in keys}


def _joined(pieces: Sequence[dict[str, Any]]) -> Tensor:
    shape, found = torch.Size(pieces[0]["piece of"]), 0
    whole = torch.empty(shape.numel(), dtype=pieces[0]["values"].dtype)
    for each in pieces:
        values = each["values"]
        whole.narrow(0, each["offset"], values.numel()).copy_(values)
        found += values.numel()
    if found != shape.numel():
        raise ValueError(f"{found} of {shape.numel()} elements")
    return whole.view(shape)


def write_part(path: Path, state: dict[str, Any]) -> str:
    """Write a part's state, complete or not at all; returns its sha256.

    Raises:
        UserError: the disk is full, or must not be written.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        sink = _Sink(file)
        torch.save(state, sink)  # type: ignore[arg-type]  # it writes and flushes only
        if sink.error is not None:
            raise sink.error
    return sink.sha256.hexdigest()


class _Sink:
    """Passes bytes on to a file, and hashes what it was given: a disk that keeps other
    bytes is found out. It needs no second copy of the state.

    An error is kept: raised through torch's writer it would come out as another.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.sha256 = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, content: memoryview) -> int:
        if self.error is None:
            self.sha256.update(content)
            try:
                self.file.write(content)
            except OSError as error:
                self.error = error
        return len(content)

    def flush(self) -> None:
        """`file` is flushed as it is closed."""
