"""Calibration errors as a table, a page and a picture."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rrl_dist.core.errors import UserError
from rrl_dist.report.calibration import calibration_table
from rrl_dist.report.load import load_run
from rrl_dist.report.markdown import tables, write_report
from rrl_dist.report.reliability import reliability_diagram
from rrl_dist.report.run import Run

Results = dict[str, Any]


@pytest.fixture
def load(tmp_path: Path, save: Any) -> Callable[[Results], Run]:
    return lambda written: load_run(save(tmp_path / "run", written))


@pytest.fixture
def written(results: Any, measured: Results) -> Results:
    """Two arms, one of which was shown corrupted images too."""
    found: Results = results("simclr", "moco", eps=0.03)
    own = measured["calibration"]
    found["arms"]["simclr"]["calibration"] = own
    diagrams = {**own["reliability"], "corrupted": own["reliability"]["clean"]}
    more = {"corrupted": own["components"]["clean"], "reliability": diagrams}
    found["arms"]["moco"]["calibration"] = {**own, **more}
    return found


def test_the_table_holds_what_was_measured(
    written: Results, measured: Results, load: Any
) -> None:
    run = load(written)
    table = calibration_table([run])
    assert table is not None
    kinds = ("clean", "attacked", "corrupted")
    named = [f"{name}, {kind}" for name in ("ECE", "RMS") for kind in kinds]
    assert table.header == ("method", *named)
    moco, simclr = table.rows  # by name: the run tells no order
    assert (simclr[3], simclr[6]) == ("\u2013", "\u2013")
    own = measured["calibration"]
    for place, errors in ((1, own["components"]["clean"]), (2, own["worst"])):
        for column, key in ((place, "ece"), (place + 3, "rms")):
            shown = simclr[column].replace("[", "").replace("]", "").replace(",", "")
            ends = [100 * errors[key][end] for end in ("value", "low", "high")]
            assert [float(n) for n in shown.split()] == pytest.approx(ends, abs=0.6)
    assert (moco[3], moco[6]) == (moco[1], moco[4])
    assert "15 equal-width bins" in table.caption
    assert "too high, the more so with few images; here 20." in table.caption
    assert "Calibration" in tables([run], None)


def test_seeds_have_a_mean_and_a_deviation(
    written: Results, save: Any, tmp_path: Path
) -> None:
    folders = []
    for seed in (0, 1):
        again = {**written, "seed": seed, "name": f"s{seed}"}
        folders.append(save(tmp_path / f"s{seed}", again))
        config = f"seed: {seed}\nname: s{seed}\n"
        (folders[-1] / "config.yaml").write_text(config)
    table = calibration_table([load_run(folder) for folder in folders])
    assert table is not None
    assert len(table.rows) == 2
    assert table.rows[0][1].endswith("\u00b1 0.0")
    assert "standard deviation over training seeds" in table.caption


def test_the_report_has_a_page_and_a_picture(
    written: Results, save: Any, tmp_path: Path
) -> None:
    folder = save(tmp_path / "run", written)
    files = write_report([folder], tmp_path / "out", against=None)
    names = {file.name for file in files}
    assert {"calibration.md", "reliability.png"} <= names
    page = (tmp_path / "out" / "calibration.md").read_text()
    assert page.startswith("| method | ECE, clean |")
    assert "(reliability.png)" in (tmp_path / "out" / "report.md").read_text()
    first = (tmp_path / "out" / "reliability.png").read_bytes()
    write_report([folder], tmp_path / "again", against=None)
    assert (tmp_path / "again" / "reliability.png").read_bytes() == first


def test_results_of_earlier_versions_have_none(results: Any, load: Any) -> None:
    run = load(results("simclr", eps=0.03))
    assert calibration_table([run]) is None
    with pytest.raises(UserError, match="has no calibration"):
        reliability_diagram(run, Path("unused.png"))


def test_other_bins_are_not_set_side_by_side(written: Results, load: Any) -> None:
    odd = {**written["arms"]["moco"]["calibration"], "binning": "10 equal-width bins"}
    written["arms"]["moco"]["calibration"] = odd
    assert calibration_table([load(written)]) is None
