"""Errors on corrupted images as a table."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from rrl_dist.report.entries import Entry, Number, cell, entries
from rrl_dist.report.run import Arm, Corruptions, Run
from rrl_dist.report.seeds import what_intervals_cover
from rrl_dist.report.tables import Table

Read = Callable[[Arm], Number]
# Titles of what stands beside the kinds, with what a caption says of it.
_MCE = "mCE (CIFAR-C)"
_MCE_IMAGENET = "mCE (ImageNet-C)"
_VALIDATION = "validation kinds"
_TOLD = {
    _MCE: "the mean error over the fifteen kinds for testing and five severities",
    _MCE_IMAGENET: "the same with each kind's error divided by AlexNet's on the "
    "published files",
    _VALIDATION: "the mean error over the kinds for validation",
}
_PERCENT = 100


def corruption_error(arm: Arm) -> Number:
    """Mean over kinds and severities, in [0, 1]."""
    return None if arm.corruptions is None else arm.corruptions.error


def error_on(arm: Arm, *, kind: str) -> Number:
    """Mean over the severities of a kind, in [0, 1]."""
    return None if arm.corruptions is None else arm.corruptions.kinds.get(kind)


def kinds_of(runs: Sequence[Run]) -> list[str]:
    """The kinds of corruption that arms were shown."""
    return list(
        dict.fromkeys(kind for found in _measured(runs) for kind in found.kinds)
    )


def images_of(runs: Sequence[Run]) -> str:
    """Where the images come from, in words."""
    return " or ".join(dict.fromkeys(found.images for found in _measured(runs)))


def _measured(runs: Sequence[Run]) -> list[Corruptions]:
    return [arm.corruptions for run in runs for arm in run.arms if arm.corruptions]


def corruption_table(runs: Sequence[Run]) -> Table | None:
    """A row for each arm, a column for each kind; None where no run has any."""
    kinds = kinds_of(runs)
    if not kinds:
        return None
    summaries = _summaries(runs)
    reads: dict[str, Read] = {"mean error": corruption_error, **summaries}
    reads |= {kind.replace("_", " "): partial(error_on, kind=kind) for kind in kinds}
    rows = tuple(
        (
            row.method,
            _images(row),
            *(cell(row, read, scale=_PERCENT, places=1) for read in reads.values()),
        )
        for row in entries(runs)
    )
    told = "".join(f" {title} is {_TOLD[title]}." for title in summaries)
    caption = (
        "Error in percent on corrupted images, a mean over severities. Published "
        "images are read from the authors' files, regenerated ones made with their "
        f"constants; figures of the two differ.{told} {what_intervals_cover(runs)}"
    )
    return Table(("method", "images", *reads), rows, caption, labels=2)


def _summaries(runs: Sequence[Run]) -> Mapping[str, Read]:
    """Those that there are."""
    found: dict[str, Callable[[Corruptions], Number]] = {
        _MCE: lambda own: own.mce,
        _MCE_IMAGENET: lambda own: own.mce_imagenet,
        _VALIDATION: lambda own: own.validation,
    }
    measured = _measured(runs)
    kept = {k: r for k, r in found.items() if any(r(m) is not None for m in measured)}
    return {title: partial(_of_arm, read=read) for title, read in kept.items()}


def _of_arm(arm: Arm, *, read: Callable[[Corruptions], Number]) -> Number:
    return None if arm.corruptions is None else read(arm.corruptions)


def _images(row: Entry) -> str:
    found = [arm.corruptions.images for arm in row.arms if arm.corruptions]
    return " or ".join(dict.fromkeys(found))
