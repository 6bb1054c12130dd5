"""JPEG's loss without its file: halved chroma, cosines of 8 x 8 pixels, and steps.

ITU-T T.81, with the tables of its annex K and the scale of the Independent JPEG Group.
"""

from typing import Any

import numpy as np
from scipy import fft

Array = np.ndarray[Any, np.dtype[np.float64]]
_LIGHT = """16 11 10 16 24 40 51 61  12 12 14 19 26 58 60 55  14 13 16 24 40 57 69 56
14 17 22 29 51 87 80 62  18 22 37 56 68 109 103 77  24 35 55 64 81 104 113 92
49 64 78 87 103 121 120 101  72 92 95 98 112 100 103 99"""
_COLOUR = (
    """17 18 24 47 99 99 99 99  18 21 26 66 99 99 99 99  24 26 56 99 99 99 99 99
47 66 99 99 99 99 99 99"""
    + " 99" * 32
)
_YCC = np.array(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
)


def jpeg(x: Array, quality: int) -> Array:
    """[H, W, 3] in [0, 255] -> the same."""
    height, width = x.shape[:2]
    edge = [(0, -height % 16), (0, -width % 16), (0, 0)]
    ycc = np.rint(np.pad(x, edge, mode="edge") @ _YCC.T + [0, 128, 128])
    light = _stepped(ycc[..., 0], _LIGHT, quality)
    chroma = [
        _doubled(_stepped(_halved(ycc[..., c]), _COLOUR, quality)) for c in (1, 2)
    ]
    back = np.stack([light, *(c - 128 for c in chroma)], 2)
    return np.rint(back @ np.linalg.inv(_YCC).T).clip(0, 255)[:height, :width]


def _stepped(plane: Array, table: str, quality: int) -> Array:
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    base = np.array(table.split(), dtype=float).reshape(8, 8)
    steps = np.floor((base * scale + 50) / 100).clip(1, 255)
    y = np.zeros_like(plane)
    for r in range(0, plane.shape[0], 8):
        for c in range(0, plane.shape[1], 8):
            block = fft.dctn(plane[r : r + 8, c : c + 8] - 128, norm="ortho")
            kept = np.rint(block / steps) * steps
            y[r : r + 8, c : c + 8] = fft.idctn(kept, norm="ortho") + 128
    return np.rint(y).clip(0, 255)


def _halved(plane: Array) -> Array:
    height, width = plane.shape
    return np.rint(plane.reshape(height // 2, 2, width // 2, 2).mean((1, 3)))


def _doubled(plane: Array) -> Array:
    """Three parts of the nearest and one of the next."""
    for axis in (0, 1):
        before = np.take(plane, np.maximum(np.arange(plane.shape[axis]) - 1, 0), axis)
        last = plane.shape[axis] - 1
        after = np.take(plane, np.minimum(np.arange(last + 1) + 1, last), axis)
        pair = np.stack([0.75 * plane + 0.25 * before, 0.75 * plane + 0.25 * after])
        plane = np.moveaxis(pair, 0, axis + 1).reshape(
            [n * (2 if i == axis else 1) for i, n in enumerate(plane.shape)]
        )
    return plane
