"""Accuracy against distance as a table."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rrl_dist.evaluate.distances import POINTS
from rrl_dist.report.distances import distances_table
from rrl_dist.report.load import load_run
from rrl_dist.report.markdown import tables
from rrl_dist.report.run import Run

Results = dict[str, Any]


@pytest.fixture
def load(tmp_path: Path, save: Any) -> Callable[[Results], Run]:
    return lambda written: load_run(save(tmp_path / "run", written))


def test_the_table_holds_what_was_measured(
    results: Any, measured: Results, load: Any
) -> None:
    written = results("simclr", eps=0.03)
    written["arms"]["simclr"]["distance"] = measured["distance"]
    run = load(written)
    table = distances_table([run])
    assert table is not None
    assert len(table.header) == 2 + POINTS // 2 + 1
    ((method, median, *shares),) = table.rows
    assert method == "simclr"
    assert float(median) == pytest.approx(measured["distance"]["median"], rel=5e-3)
    points = measured["distance"]["curve"][::2]
    for share, point in zip(shares, points, strict=True):
        percent = float(share.split(" ")[0].replace(",", ""))
        assert percent == pytest.approx(100 * point["value"], abs=0.06)
    assert "Distances" in tables([run], None)


def test_results_of_earlier_versions_have_no_such_table(
    results: Any, measured: Results, load: Any
) -> None:
    written = results("simclr", eps=0.03)
    old = {
        k: v for k, v in measured["distance"].items() if k not in ("curve", "attack")
    }
    written["arms"]["simclr"]["distance"] = old
    assert distances_table([load(written)]) is None
    assert distances_table([load(results("simclr", eps=0.03))]) is None
