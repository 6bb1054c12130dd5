"""What an attack did to images, and to the classifier's answers."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rrl_dist.core.errors import UserError
from rrl_dist.report.figures import DPI, PALE, drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS, _FEWEST = 8, 4
_RIGHT, _WRONG = "#00664d", "#b03a00"
# Inches.
_CELL, _GAP, _LABEL, _MARGIN = 1.15, 0.12, 1.55, 0.2
_HEADING, _LINE, _REST = 0.2, 0.165, 0.35
_LETTER = 0.14  # of an arm's name
_LONGEST_NAME = 13  # characters that fit over a cell

_DAMAGE = (KeyError, ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile)

Floats = np.ndarray[Any, np.dtype[np.float32]]
Ints = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Gallery:
    """Some images of an evaluation.

    Attributes:
        images, attacked: [n, 3, H, W] float in [0, 1].
        labels, predicted_clean, predicted_attacked: [n], places in `classes`.
        classes: names.
        eps: radius of the attack, in [0, 1] pixels.
    """

    images: Floats
    attacked: Floats
    labels: Ints
    predicted_clean: Ints
    predicted_attacked: Ints
    classes: tuple[str, ...]
    eps: float


def load_gallery(file: Path) -> Gallery:
    """Read the `.npz` of one arm; nothing in it is unpickled.

    Raises:
        UserError: if the file is damaged, or lacks an array.
    """
    try:
        # Opened here: numpy leaves a damaged file open.
        with file.open("rb") as raw, np.load(raw, allow_pickle=False) as arrays:
            gallery = Gallery(
                images=arrays["images"],
                attacked=arrays["attacked"],
                labels=arrays["labels"],
                predicted_clean=arrays["predicted_clean"],
                predicted_attacked=arrays["predicted_attacked"],
                classes=tuple(str(name) for name in arrays["classes"]),
                eps=float(arrays["eps"]),
            )
    except _DAMAGE as error:
        raise UserError(f"{file} is no gallery ({error}); evaluate again") from None
    n, shape = len(gallery.labels), gallery.images.shape
    answers = gallery.predicted_clean.shape, gallery.predicted_attacked.shape
    if shape != gallery.attacked.shape or len(shape) != 4 or shape[:2] != (n, 3):
        raise UserError(f"{file} holds images of shape {shape}; evaluate again")
    if n == 0 or answers != ((n,), (n,)):
        raise UserError(f"{file} holds {n} labels, {answers} answers; evaluate again")
    return gallery


def gallery(galleries: Mapping[str, Path | Gallery], path: Path) -> None:
    """Draw image, perturbation and attacked image, a block of rows for each arm.

    The first 8 images of each are shown. Over an image stands its class and the
    classifier's answer.

    Raises:
        UserError: if there is nothing to draw, or a file cannot be read.
    """
    if not galleries:
        raise UserError("no gallery to draw; evaluate with a gallery first")
    shown = {
        arm: source if isinstance(source, Gallery) else load_gallery(source)
        for arm, source in galleries.items()
    }
    most = max(len(one.labels) for one in shown.values())
    columns = min(_COLUMNS, max(_FEWEST, most))  # room for names in any case
    lines = max(_title_lines(one) for one in shown.values())
    block = _HEADING + 3 * _CELL + 2 * (lines * _LINE + _GAP) + _GAP + _REST
    width = _LABEL + columns * (_CELL + _GAP) + _MARGIN
    height = len(shown) * block + _MARGIN - _REST / 2
    with drawing(path, width=width, height=height) as figure:
        for place, (arm, one) in enumerate(shown.items()):
            top = height - _MARGIN / 2 - place * block
            _block(figure, arm, one, top=top, title=lines * _LINE + _GAP)


def amplified(one: Gallery) -> tuple[Floats, float]:
    """The perturbation around grey, and the factor that fills [0, 1] with it.

    The factor is 1 / (2 eps); where no pixel moves by eps, as in an L2 or L1 ball, the
    largest move takes its place.
    """
    delta = one.attacked - one.images
    reach = min(one.eps, float(np.abs(delta).max())) or one.eps or 0.5
    factor = 1 / (2 * reach)
    return np.clip(0.5 + factor * delta, 0, 1).astype(np.float32), factor


def _block(figure: Figure, arm: str, one: Gallery, *, top: float, title: float) -> None:
    """One arm's three rows, from `top` (inches above the figure's foot) downwards."""
    width, height = figure.get_size_inches()
    name = _shorten(arm, int((width - 2 * _MARGIN) / _LETTER))
    figure.text(_MARGIN / width, top / height, name, va="top", size=13, weight="bold")
    delta, factor = amplified(one)
    answer = "(class \u2192 answer)"
    rows = (
        (f"image\n{answer}", one.images, one.predicted_clean),
        (f"perturbation\n(amplified by {factor:.3g},\naround grey)", delta, None),
        (f"attacked image\n{answer}", one.attacked, one.predicted_attacked),
    )
    foot = top - _HEADING
    for note, pictures, answers in rows:
        foot -= _CELL + (_GAP if answers is None else title)
        middle = (foot + _CELL / 2) / height
        figure.text(_MARGIN / width, middle, note, va="center", size=9, color=PALE)
        for column in range(min(_COLUMNS, len(pictures))):
            left = _LABEL + column * (_CELL + _GAP)
            box = left / width, foot / height, _CELL / width, _CELL / height
            axes = figure.add_axes(box)
            _show(axes, pictures[column])
            if answers is not None:
                _head(axes, one, int(one.labels[column]), int(answers[column]))


def _show(axes: Axes, picture: Floats) -> None:
    small = max(picture.shape[1:]) < _CELL * DPI
    axes.imshow(
        picture.transpose(1, 2, 0).clip(0, 1),
        interpolation="nearest" if small else "antialiased",
    )
    axes.set_axis_off()


def _head(axes: Axes, one: Gallery, label: int, answer: int) -> None:
    """Write "7 -> 3" over an image, with a tick or a cross."""
    mark, colour = ("\u2713", _RIGHT) if answer == label else ("\u2717", _WRONG)
    lines = [f"{_name(one, label)} \u2192", f"{_name(one, answer)} {mark}"]
    if _title_lines(one) == 1:
        lines = [" ".join(lines)]
    for above, line in enumerate(reversed(lines)):
        axes.annotate(
            line,
            (0.5, 1.0),
            xycoords="axes fraction",
            xytext=(0, 4 + above * _LINE * 72),
            textcoords="offset points",
            ha="center",
            va="baseline",
            size=9,
            color=colour,
        )


def _title_lines(one: Gallery) -> int:
    """Titles take two lines where two of the longest names do not fit into one."""
    longest = max((len(name) for name in one.classes), default=0)
    return 2 if 2 * longest > _LONGEST_NAME - 5 else 1


def _name(one: Gallery, label: int) -> str:
    name = one.classes[label] if 0 <= label < len(one.classes) else str(label)
    return _shorten(name, _LONGEST_NAME)


def _shorten(name: str, length: int) -> str:
    return name if len(name) <= length else name[: length - 1] + "\u2026"
