"""The inner maximization leaves the outer gradient as it is: the ZeRO-3 trap.

The figures stand in docs/strategies.md; RRL_WRITE_LISTS=1 writes them.
"""

import os
import re
from functools import cache
from pathlib import Path

import pytest

from tests.gloo import run_workers
from tests.longer import covering, long
from tests.objectives.harness import OBJECTIVES
from tests.training.strategies import EVERY, gradient_norms

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "strategies.md"
_TABLE = re.compile(r"(?<=<!-- gradient norms -->\n).*?(?=<!-- end -->)", re.DOTALL)


@cache
def norms(name: str, kind: str, attack: str) -> list[float]:
    """Of three steps, the same on all workers."""
    workers = 1 if kind == "single" else 2
    found = run_workers(workers, gradient_norms, name, kind, attack)
    assert all(one == found[0] for one in found)
    return list(found[0])


@pytest.mark.parametrize(("name", "kind"), covering(OBJECTIVES, EVERY))
def test_the_inner_maximization_leaves_the_gradient(name: str, kind: str) -> None:
    without = norms(name, kind, "none")
    assert norms(name, kind, "inner") == without
    assert min(without) > 1e-3


@pytest.mark.parametrize("name", [OBJECTIVES[0], *map(long, OBJECTIVES[1:])])
def test_an_attack_through_zero_3_piles_up_no_gradients(name: str) -> None:
    """DeepSpeed's own engine adds them up from step to step; `forget_gradients` ends
    that."""
    without, through = norms(name, "zero3", "none"), norms(name, "zero3", "engine")
    assert through == pytest.approx(without, rel=1e-3)


ATTACKS = {"none": "without", "inner": "with", "engine": "through the engine"}


def table() -> dict[tuple[str, str], list[list[float]]]:
    """Of each attack, for every objective and strategy; the mistake under ZeRO-3."""
    found = {}
    for name in OBJECTIVES:
        for kind in EVERY:
            made = [a for a in ATTACKS if a != "engine" or kind == "zero3"]
            found[name, kind] = [norms(name, kind, attack) for attack in made]
    return found


def written(found: dict[tuple[str, str], list[list[float]]]) -> str:
    rows = [["objective", "strategy", *ATTACKS.values()], [":--"] * 5]
    for key, values in found.items():
        cells = [", ".join(f"{v:.3f}" for v in three) for three in values]
        rows.append([*key, *cells, *[""] * (3 - len(cells))])
    return "".join("| " + " | ".join(row) + " |\n" for row in rows)


@pytest.mark.long
def test_the_figures_in_the_docs_are_these() -> None:
    found = table()
    if os.environ.get("RRL_WRITE_LISTS"):
        PAGE.write_text(_TABLE.sub(written(found), PAGE.read_text()))
    match = _TABLE.search(PAGE.read_text())
    assert match is not None
    lines = match[0].splitlines()[2:]
    told = {}
    for line in lines:
        name, kind, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        told[name, kind] = [[float(v) for v in c.split(",")] for c in cells if c]
    assert told.keys() == found.keys()
    for key, values in told.items():
        for one, other in zip(values, found[key], strict=True):
            assert one == pytest.approx(other, rel=0.01, abs=1e-3), key
