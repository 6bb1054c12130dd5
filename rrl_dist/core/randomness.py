"""Randomness as an argument: the same key gives the same draws anywhere.

`uniform` is counter-based: sample i's draws are a pure function of (seed, key, i), so
they do not change with the batch a sample is in, its place there, the worker or the
device. Each sample is one SplitMix64 stream (Steele, Lea, Flood, OOPSLA 2014) in
64-bit integer tensor arithmetic, which is exact on every device.
"""

import hashlib
import math

import numpy as np
import torch
from torch import Tensor

Key = int | str

_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


def _signed(word: int) -> int:
    """The int64 that has the bits of the unsigned 64-bit `word`."""
    return word - (1 << 64) if word >= 1 << 63 else word


def _shift_right(z: Tensor, bits: int) -> Tensor:
    """Logical shift: int64's own shift would drag the sign along."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift_right(z, 30)) * _signed(_MIX_1)
    z = (z ^ _shift_right(z, 27)) * _signed(_MIX_2)
    return z ^ _shift_right(z, 31)


def _digest(seed: int, key: tuple[Key, ...]) -> int:
    """64 bits that name (seed, key); independent of Python's hash seed."""
    text = repr((int(seed), *key)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def uniform(seed: int, *key: Key, index: Tensor, n: int) -> Tensor:
    """Uniform draws that belong to samples.

    Args:
        seed: the run's seed.
        key: the purpose, such as ("crop", epoch, view); integers and strings.
        index: [N] int64, the samples.
        n: draws per sample.

    Returns:
        [N, n] float32 in [0, 1), multiples of 2**-24, on the device of `index`.
    """
    state = _mix(index.long() * _signed(_GOLDEN) + _signed(_digest(seed, key)))
    counter = torch.arange(1, n + 1, device=index.device) * _signed(_GOLDEN)
    word = _mix(state[:, None] + counter)
    return _shift_right(word, 40).float() * 2.0**-24


def normal(seed: int, *key: Key, index: Tensor, n: int) -> Tensor:
    """[N, n] standard normal draws (Box-Muller) that belong to samples."""
    u = uniform(seed, *key, index=index, n=2 * n)
    radius = torch.sqrt(-2.0 * torch.log1p(-u[:, :n]))
    return radius * torch.cos(2.0 * math.pi * u[:, n:])


def stream(seed: int, *key: Key) -> np.random.Generator:
    """A generator for draws on the host (shuffling, initialization), one per key."""
    return np.random.Generator(np.random.PCG64(_digest(seed, key)))


def torch_stream(seed: int, *key: Key) -> torch.Generator:
    """As `stream`, for torch's CPU functions."""
    return torch.Generator().manual_seed(_digest(seed, key) >> 1)
