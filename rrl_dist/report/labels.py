"""How numbers, attacks and radii are written for a reader."""

import math
import re
from collections.abc import Iterable, Sequence

from rrl_dist.core.aggregate import Proportion
from rrl_dist.core.seeds import Spread
from rrl_dist.report.run import Run

MISSING = "\u2013"  # en dash
_NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
_COMPONENT = re.compile(
    r"(?P<attack>.+?)-(?P<norm>linf|l2|l1)(@(?P<eps>\d+(\.\d+)?(e-?\d+)?))?", re.ASCII
)

# An attack that was made on another classifier, "mi-fgsm10-from-OTHER-linf@0.03137".
TRANSFERRED = re.compile(
    r"(?P<attack>.+?)-from-(?P<source>.+)-(linf|l2|l1)@[0-9.e-]+", re.ASCII
)


def percent(accuracy: Proportion) -> str:
    """A share and its interval, in percent: "57.2 [52.1, 62.2]"."""
    value, low, high = accuracy.value, accuracy.low, accuracy.high
    return f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def decimals(value: float) -> int:
    """How many show three significant digits, at most four."""
    size = abs(value)
    return 2 if size == 0 else min(4, max(0, 2 - math.floor(math.log10(size))))


def number(value: float, like: float | None = None) -> str:
    """Three significant digits: "0.412", "41.2"; or as many decimals as `like` has."""
    return f"{value:,.{decimals(value if like is None else like)}f}"


def interval(value: float, low: float, high: float) -> str:
    """A number and its interval: "0.412 [0.398, 0.426]"."""
    return f"{number(value)} [{number(low, value)}, {number(high, value)}]"


def plus_minus(spread: Spread, places: int | None = None) -> str:
    """Mean and standard deviation over seeds: "94.2 ± 0.5"."""
    digits = decimals(spread.mean) if places is None else places
    if spread.deviation is None:
        return f"{spread.mean:,.{digits}f}"
    return f"{spread.mean:,.{digits}f} ± {spread.deviation:,.{digits}f}"


def minutes(value: float | None) -> str:
    """Minutes with one decimal."""
    if value is None:
        return MISSING
    return "<0.1" if 0 < value < 0.05 else f"{value:.1f}"


def norm(name: str) -> str:
    """ "linf" -> "Linf"."""
    return _NORMS.get(name, name)


def of_255(eps: float) -> str | None:
    """ "8/255" where eps is a whole number of 8-bit steps, else None."""
    steps = eps * 255
    whole = round(steps)
    return f"{whole}/255" if 0 < whole < 255 and abs(steps - whole) < 1e-4 else None


def radius(eps: float) -> str:
    """As people write it: "0.05", "0.5", "12", but "8/255"."""
    short = abs(round(eps, 4) - eps) < 1e-9
    return f"{eps:.4g}" if short else of_255(eps) or f"{eps:.4g}"


def attack(component: str) -> str:
    """ "pgd20-linf@0.05" -> "PGD-20 Linf 0.05"; unknown forms stay as they are."""
    match = _COMPONENT.fullmatch(component)
    name = match["attack"] if match else component
    parts = [re.sub(r"([a-z])(\d+)$", r"\1-\2", part) for part in name.split("-")]
    title = "-".join(_word(part) for part in parts)
    if match is None:
        known = re.fullmatch(r"(a?pgd|fab|square|mi-fgsm)[a-z0-9-]*", name)
        return title if known else name
    size = f" {radius(float(match['eps']))}" if match["eps"] else ""
    return f"{title} {norm(match['norm'])}{size}"


def _word(part: str) -> str:
    if part == "autoattack":
        return "AutoAttack"
    letters = re.match(r"[a-z]*", part)
    short = letters is not None and len(letters[0]) <= 4
    return part.upper() if short else part.capitalize()


def threat(run: Run) -> str:
    """The run's threat model: "Linf 8/255"."""
    return f"{norm(run.norm)} {radius(run.eps)}"


def images(run: Run, accuracies: Iterable[Proportion]) -> str:
    """How many images the accuracies are over: "360 test images"."""
    counts = [accuracy.count for accuracy in accuracies]
    few, many = min(counts), max(counts)
    number = f"{few:,}" if few == many else f"{few:,} to {many:,}"
    return f"{number} {run.split} images"


def seeds(run: Run) -> str:
    """ "one seed (0)" or "3 seeds"."""
    return f"one seed ({run.seed})" if run.seeds == 1 else f"{run.seeds} seeds"


def several_seeds(runs: Sequence[Run]) -> str:
    """ "3 seeds (0, 1, 2)"."""
    return f"{len(runs)} seeds ({', '.join(str(run.seed) for run in runs)})"


def head_seeds(run: Run) -> str | None:
    """ "3 head seeds (0, 1, 2)"; None where heads have one."""
    seeds = {arm.head_seed: None for arm in run.arms if arm.head_seed is not None}
    if len(seeds) < 2:
        return None
    return f"{len(seeds)} head seeds ({', '.join(map(str, seeds))})"
