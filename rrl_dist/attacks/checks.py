"""What attacks refuse, each in one line."""

from itertools import chain

import torch
from torch import Tensor, nn

from rrl_dist.attacks.balls import Ball
from rrl_dist.core.errors import UserError


def check_counts(**counts: int) -> None:
    """Each named number must be at least 1.

    Raises:
        UserError: if one is not.
    """
    for name, count in counts.items():
        if count < 1:
            raise UserError(f"attack has {name}={count}; set it to 1 or more")


def check_ball(ball: object) -> None:
    """A threat model is a norm and a radius.

    Raises:
        UserError: if it is anything else, such as the radius alone.
    """
    if not isinstance(ball, Ball):
        raise UserError(f"ball={ball!r} names no norm; write it as Linf(8 / 255)")


def check_device(model: nn.Module, x: Tensor) -> None:
    """The model must be where the images are; parts of it may be elsewhere, since a
    model of several devices is its author's to feed.

    Raises:
        UserError: if no part of it is there.
    """
    found = [each.device for each in chain(model.parameters(), model.buffers())]
    if found and x.device not in found:
        raise UserError(
            f"the model is on {found[0]} and the images on {x.device}; "
            "move one to the other"
        )


def check_inputs(x: Tensor, y: Tensor, index: Tensor) -> None:
    """Images [N, ...] float32 in [0, 1]; labels and index [N] int64, on their device.

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
        if column.device != x.device:
            raise UserError(
                f"{name}: on {column.device}, and the images on {x.device}; "
                "move one to the other"
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
        found = f"a {type(logits).__name__}"
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


def are_probabilities(logits: Tensor) -> bool:
    """Whether all rows of [N, K] are between 0 and 1 and add up to 1: of logits they
    are by chance only where there is one class, or one image."""
    if logits.shape[1] < 2 or len(logits) == 0:
        return False
    adds_up = (logits.sum(1) - 1).abs() < 1e-3  # far above half precision's rounding
    return bool(((logits >= 0).all(1) & adds_up).all())


def check_no_probabilities(logits: Tensor) -> None:
    """Logits [N, K] must not be the outputs of a softmax, whose gradients vanish where
    a model is sure: attacks would find it more robust than it is.

    Raises:
        UserError: if they look like that.
    """
    if are_probabilities(logits):
        raise UserError(
            "the model returns probabilities, behind which gradients vanish; "
            "let it return what goes into its softmax"
        )
