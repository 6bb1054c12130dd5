"""Which checkpoints stay, and the settings of `train.checkpoints`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rrl_dist.core.errors import UserError
from rrl_dist.core.store import open_store
from rrl_dist.training.checkpoint import Commit

# What the probe measures on validation images, and more of is better.
METRICS = ("knn_acc", "linear_acc", "robust_acc")


@dataclass(frozen=True)
class Kept:
    """Which checkpoints stay.

    Attributes:
        last: how many of the newest.
        best: of `METRICS`, the one whose best checkpoint stays as well, or None.
    """

    last: int
    best: str | None

    @property
    def most(self) -> int:
        """How many stay at most."""
        return self.last + (self.best is not None)

    def of(self, commits: Iterable[Commit]) -> list[Commit]:
        """Those of the given that stay; of two that are as good, the later one."""
        newest = sorted(commits, key=lambda commit: commit.step, reverse=True)
        metric = self.best or ""
        measured = [c for c in newest if metric in c.measured]
        best = max(measured, key=lambda c: (c.measured[metric], c.step), default=None)
        kept = newest[: self.last]
        if best is not None and best not in kept:
            kept.append(best)
        return kept


def kept_of(settings: Mapping[str, Any]) -> Kept:
    """Of `train.checkpoints`."""
    return Kept(int(settings["keep"]), settings["best"])


def check_checkpoints(
    train: Mapping[str, Any], probe: Mapping[str, Any] | None
) -> None:
    """Find mistakes in `train.checkpoints` before anything is trained.

    Args:
        train, probe: of a stage.

    Raises:
        UserError: naming the setting.
    """
    own = train["checkpoints"]
    keep, best, copy = own["keep"], own["best"], own["copy"]
    if not isinstance(keep, int) or isinstance(keep, bool) or keep < 1:
        raise UserError(f"train.checkpoints.keep={keep}; set a whole number from 1 on")
    if best is not None and best not in METRICS:
        raise UserError(
            f"train.checkpoints.best={best}; choose {', '.join(METRICS)} or null"
        )
    if best is not None and not (probe and probe["every_epochs"]):
        raise UserError(
            f"train.checkpoints.best={best} is measured by a probe, and there is none; "
            "set probe=online, or train.checkpoints.best=null"
        )
    if copy is not None:
        open_store(str(copy))
