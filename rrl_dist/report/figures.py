"""Pictures as files: equal numbers give equal bytes, whatever the user's settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rrl_dist.core.storage import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150
INK = "#222222"
PALE = "#6b6b6b"
# Okabe and Ito 2008, told apart by colour-blind readers; their yellow is too pale here.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">")
LINES = ("-", "--", "-.", ":")
_STYLE = {
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#9a9a9a",
    "xtick.color": INK,
    "ytick.color": INK,
    "text.parse_math": False,  # a name may hold dollar signs
}


@contextmanager
def drawing(path: Path, *, width: float, height: float) -> Iterator[Figure]:
    """An empty figure that becomes the PNG at `path` when the block succeeds.

    Args:
        path: written atomically.
        width, height: in inches, of 150 pixels each.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", _STYLE]):
        figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
        yield figure
        with atomic_path(path) as temporary:
            figure.savefig(temporary, format="png", metadata={"Software": None})
