"""Calibration of an evaluation's outputs: clean, attacked and corrupted images."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrl_dist.core.aggregate import rounded
from rrl_dist.core.calibration import BINNING, INTERVAL, Bin, Calibration
from rrl_dist.core.columns import Columns
from rrl_dist.core.errors import UserError
from rrl_dist.evaluate.grid import CLEAN
from rrl_dist.evaluate.plan import Suite


def calibration_errors(
    components: Mapping[str, Columns], suite: Suite
) -> dict[str, Any]:
    """What `results.json` holds of it.

    Each component's outputs are its answers to its own images; the search's are left
    out, since it looks for answers that are hardly wrong.

    Args:
        components: by name; each is asked for when it is needed, and not kept.
        suite: what was run.

    Raises:
        UserError: a confidence is no number in [0, 1].
    """
    names = {*suite.full, *(name for _, name in suite.curve), *suite.corruptions}
    found: dict[str, Any] = {}
    clean, corrupted = None, None
    for name in sorted(names):
        columns = components[name]
        own = calibration_of(name, columns)
        found[name] = _errors(own, len(columns))
        if name == CLEAN:
            clean = own
        if name in suite.corruptions:
            corrupted = own if corrupted is None else corrupted + own
    columns = worst_outputs(components[name] for name in suite.full)
    worst = calibration_of("the worst case", columns)
    count = len(columns)
    return {
        "binning": BINNING,
        "interval": INTERVAL,
        "components": found,
        "worst": _errors(worst, count),
        "corrupted": None if corrupted is None else _errors(corrupted, count),
        "reliability": {
            "clean": None if clean is None else _diagram(clean),
            "worst": _diagram(worst),
            "corrupted": None if corrupted is None else _diagram(corrupted),
        },
    }


def calibration_of(name: str, columns: Columns) -> Calibration:
    """Of one component's outputs.

    Raises:
        UserError: a confidence is no number in [0, 1].
    """
    try:
        return Calibration.of(columns.index, columns.confidence, columns.answer_right)
    except ValueError as error:
        raise UserError(f"{name}: {error}; check the model's logits") from None


def worst_outputs(components: Iterable[Columns]) -> Columns:
    """Each image's output under the component that does worst by it.

    That is one whose answer is wrong, if there is any, and among these the one with
    the largest loss; of equals the first.

    Args:
        components: of the same images, which are read one after another.

    Raises:
        ValueError: there is none, or they are not of the same samples.
    """
    worst: Columns | None = None
    for columns in components:
        worst = columns if worst is None else _worse(worst, columns)
    if worst is None:
        raise ValueError("0 samples")
    return worst


def _worse(first: Columns, other: Columns) -> Columns:
    """Only what is needed of outputs is of the worse one: index, answers, losses."""
    if not np.array_equal(first.index, other.index):
        raise ValueError("components of different samples have no worst case")
    wrong = first.answer_right & ~other.answer_right
    alike = first.answer_right == other.answer_right
    moved: NDArray[np.bool_] = wrong | (alike & (other.loss > first.loss))
    return Columns(
        index=first.index,
        correct=first.correct & other.correct,
        loss=np.where(moved, other.loss, first.loss),
        distance=np.where(moved, other.distance, first.distance),
        displacement=None,
        broken_by=np.full_like(first.broken_by, -1),
        attacks=(),
        confidence=np.where(moved, other.confidence, first.confidence),
        answer_right=np.where(moved, other.answer_right, first.answer_right),
    )


def _errors(found: Calibration, images: int) -> dict[str, Any]:
    errors = found.errors(images)
    return {name: getattr(errors, name).as_dict() for name in ("ece", "rms", "mce")}


def _diagram(found: Calibration) -> list[dict[str, Any]]:
    return [_told(one) for one in found.bins()]


def _told(one: Bin) -> dict[str, Any]:
    means = {k: None if v is None else rounded(v) for k, v in asdict(one).items()}
    return {**means, "count": one.count}
