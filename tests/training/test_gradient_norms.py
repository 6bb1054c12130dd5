"""The inner maximization leaves the outer gradient as it is: the ZeRO-3 trap.

The figures stand in docs/strategies.md; RRL_WRITE_LISTS=1 writes them.
"""

import os
import re
from functools import cache
from pathlib import Path

import pytest

from tests.gloo import run_workers
from tests.objectives.harness import OBJECTIVES
from tests.training.strategies import EVERY, gradient_norms

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "strategies.md"
_TABLE = re.compile(r"(?<=<!-- gradient norms -->\n).*?(?=<!-- end -->)", re.DOTALL)
ENGINE = "through the engine"


@cache
def norms(name: str, kind: str, attack: str) -> list[float]:
    """Of three steps, the same on all workers."""
    workers = 1 if kind == "single" else 2
    found = run_workers(workers, gradient_norms, name, kind, attack)
    assert all(one == found[0] for one in found)
    return list(found[0])


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("kind", EVERY)
def test_the_inner_maximization_leaves_the_gradient(name: str, kind: str) -> None:
    without = norms(name, kind, "none")
    assert norms(name, kind, "inner") == without
    assert min(without) > 1e-3


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_attack_through_zero_3_would_be_noticed(name: str) -> None:
    without, through = norms(name, "zero3", "none"), norms(name, "zero3", "engine")
    assert through[-1] > 1.5 * without[-1], "the trap is gone; so may its guard"


def table() -> dict[tuple[str, str, str], list[float]]:
    """Every objective under every strategy, and the mistake under ZeRO-3."""
    labels = {"none": "without", "inner": "with"}
    found = {
        (name, kind, label): norms(name, kind, attack)
        for name in OBJECTIVES
        for kind in EVERY
        for attack, label in labels.items()
    }
    for name in OBJECTIVES:
        found[name, "zero3", ENGINE] = norms(name, "zero3", "engine")
    return found


def test_the_figures_in_the_docs_are_these() -> None:
    found = table()
    if os.environ.get("RRL_WRITE_LISTS"):
        rows = ["| objective | strategy | attack | 1 | 2 | 3 |"]
        rows.append("| :-- | :-- | :-- | --: | --: | --: |")
        for key, values in found.items():
            rows.append("| " + " | ".join([*key, *(f"{v:.3f}" for v in values)]) + " |")
        written = _TABLE.sub("\n".join(rows) + "\n", PAGE.read_text())
        PAGE.write_text(written)
    match = _TABLE.search(PAGE.read_text())
    assert match is not None
    lines = match[0].splitlines()[2:]
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines]
    told = {(c[0], c[1], c[2]): [float(v) for v in c[3:]] for c in cells}
    assert told.keys() == found.keys()
    for key, values in told.items():
        assert values == pytest.approx(found[key], rel=0.01, abs=1e-3), key
