"""What attacks refuse, each in one line."""

import torch
from torch import Tensor

from rrl_dist.core.errors import UserError


def check_counts(**counts: int) -> None:
    """Each named number must be at least 1.

    Raises:
        UserError: if one is not.
    """
    for name, count in counts.items():
        if count < 1:
            raise UserError(f"attack has {name}={count}; set it to 1 or more")


def check_inputs(x: Tensor, y: Tensor, index: Tensor) -> None:
    """Images [N, ...] float32 in [0, 1]; labels and index [N] int64.

    Raises:
        UserError: if they are anything else.
    """
    _check_images(x)
    for name, column in (("labels", y), ("index", index)):
        if column.shape != x.shape[:1] or column.dtype != torch.int64:
            found = f"{column.dtype} of shape {tuple(column.shape)}"
            raise UserError(
                f"{name}: {found} for {len(x)} images; give int64 of shape ({len(x)},)"
            )


def _check_images(x: Tensor) -> None:
    if x.dtype != torch.float32 or x.ndim < 2:
        raise UserError(
            f"images are {x.dtype} of shape {tuple(x.shape)}; give float32 in [0, 1], "
            "one row per image (uint8 images are divided by 255)"
        )
    if x.isnan().any():
        raise UserError("images contain NaN; mend them before they are attacked")
    if x.numel() and not 0 <= x.min() <= x.max() <= 1:
        raise UserError(
            f"images range from {x.min():.4g} to {x.max():.4g}; give [0, 1] and "
            "normalize inside the model, where eps does not change with it"
        )


def check_logits(logits: object, count: int) -> Tensor:
    """What a model returned for `count` images, if it is logits [count, K].

    Raises:
        UserError: if it is anything else.
    """
    if not isinstance(logits, Tensor):
        found = type(logits).__name__
    elif logits.ndim != 2 or len(logits) != count:
        found = f"shape {tuple(logits.shape)}"
    else:
        return logits
    raise UserError(
        f"the model returns {found} for {count} images; "
        "attack one that returns logits [images, classes]"
    )


def check_classes(y: Tensor, classes: int) -> None:
    """Labels in [0, classes).

    Raises:
        UserError: naming the first that is not.
    """
    outside = y[(y < 0) | (y >= classes)]
    if len(outside):
        raise UserError(
            f"label {int(outside[0])} with a model of {classes} classes; "
            f"give labels 0 to {classes - 1}"
        )
