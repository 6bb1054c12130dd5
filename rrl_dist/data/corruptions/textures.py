"""Textures of frost, from image files."""

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rrl_dist.core.errors import UserError

_SUFFIXES = (".png", ".jpg", ".jpeg")
_KEY = "suite.corruptions.frost"
SHRUNK = 5  # textures for small images are taken every so many pixels


@cache
def textures(folder: str) -> tuple[Tensor, ...]:
    """[3, H, W] double in [0, 1] each, by the files' names.

    Raises:
        UserError: there is no such folder, or no image in it.
    """
    found = []
    for path in _files(folder):
        try:
            with Image.open(path) as file:
                pixels = np.array(file.convert("RGB"))
        except (OSError, ValueError, SyntaxError):
            raise UserError(
                f"{_KEY}: {path} is no image that can be read; remove or replace it"
            ) from None
        found.append(torch.from_numpy(pixels).permute(2, 0, 1).double() / 255)
    return tuple(found)


def textures_hash(folder: str) -> str:
    """sha256 over the files' names and bytes, in hexadecimal."""
    digest = hashlib.sha256()
    for path in _files(folder):
        digest.update(repr((path.name, path.stat().st_size)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def check_textures(folder: str, size: int, *, small: bool) -> None:
    """Hold textures against images of `size` pixels.

    Raises:
        UserError: one is too small, or see `textures`.
    """
    needed = size * (SHRUNK if small else 1)
    for path, texture in zip(_files(folder), textures(folder), strict=True):
        height, width = texture.shape[1:]
        if min(height, width) < needed:
            raise UserError(
                f"{_KEY}: {path.name} has {width} x {height} px, and images of {size} "
                f"px need at least {needed}; remove it, or set {_KEY}=null"
            )


def _files(folder: str) -> list[Path]:
    root = Path(folder)
    files = []
    if root.is_dir():
        files = sorted(p for p in root.iterdir() if p.suffix.lower() in _SUFFIXES)
    if not files:
        raise UserError(
            f"{_KEY}={folder} has no image files; give a folder of textures, or null"
        )
    return files
