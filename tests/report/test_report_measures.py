"""The bound, distances and the representation, as a real evaluation measured them."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rrl_dist.core.errors import UserError
from rrl_dist.report import labels
from rrl_dist.report.load import load_run
from rrl_dist.report.markdown import BOUND, tables, write_report
from rrl_dist.report.measures import bound_table, measures_table
from rrl_dist.report.run import Run

Results = dict[str, Any]
KEYS = ("bound", "distance", "representation")


@pytest.fixture
def given(results: Any, measured: Results) -> Results:
    """Two tasks of one arm; the second has other numbers."""
    written: Results = results("simclr-seen", "simclr-unseen", eps=0.03)
    for name, task in (("simclr-seen", "seen"), ("simclr-unseen", "unseen")):
        own = {key: copy.deepcopy(measured[key]) for key in KEYS}
        written["arms"][name] |= {"arm": "simclr", "task": task, **own}
    for level in written["arms"]["simclr-unseen"]["bound"]:
        level["head_norm"] *= 2
    written["tasks"] = {"seen": [0, 1, "two"], "unseen": list(range(50))}
    return written


@pytest.fixture
def load(tmp_path: Path, save: Any) -> Callable[[Results], Run]:
    return lambda written: load_run(save(tmp_path / "run", written))


def number(cell: str) -> float:
    return float(cell.split(" ")[0].replace(",", ""))


def test_a_run_holds_what_was_measured(given: Results, load: Any) -> None:
    run = load(given)
    for arm in run.arms:
        entry = given["arms"][arm.name]
        assert (arm.arm, arm.task) == ("simclr", entry["task"])
        assert len(arm.levels) == len(entry["bound"]) > 1
        for level, written in zip(arm.levels, entry["bound"], strict=True):
            assert level.eps == written["eps"]
            assert level.head_norm == written["head_norm"]
            for key in ("clean_loss", "displacement", "bound", "loss"):
                assert getattr(level, key).as_dict() == written[key]
            assert level.relative.as_dict() == written["relative_displacement"]
        assert arm.distance.censored == entry["distance"]["censored"]
        assert arm.distance.mean.value == entry["distance"]["value"]
        for key in ("feature_std", "effective_rank", "sigma_squared_sum"):
            assert getattr(arm.representation, key) == entry["representation"][key]
        sigmas = entry["representation"]["sigmas"].values()
        assert arm.representation.largest_sigma == max(sigmas) > min(sigmas)


def test_measures_stand_under_their_titles(given: Results, load: Any) -> None:
    run = load(given)
    table = measures_table([run])
    assert table is not None
    assert len(table.rows) == len(run.arms)
    for row, arm in zip(table.rows, run.arms, strict=True):
        shown = dict(zip(table.header, row, strict=True))
        full = next(one for one in arm.levels if one.eps == pytest.approx(0.03))
        expected = {
            "R(f) / spread": full.relative.value,
            "mean L2 distance": arm.distance.mean.value,
            "not broken": arm.distance.censored,
            "sum of sigma²": arm.representation.sigma_squared_sum,
            "feature std": arm.representation.feature_std,
            "effective rank": arm.representation.effective_rank,
        }
        for title, value in expected.items():
            assert number(shown[title]) == pytest.approx(value, rel=5e-3, abs=5e-5)
    assert labels.radius(run.arms[0].distance.radius) in table.caption


def test_the_bound_has_a_row_for_each_task_and_size(given: Results, load: Any) -> None:
    run = load(given)
    table = bound_table([run])
    assert table is not None
    rows = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    sizes = [labels.radius(level.eps) for level in run.arms[0].levels]
    found = [(row["task"], row["eps"]) for row in rows]
    assert found == [(task, eps) for task in ("seen", "unseen") for eps in sizes]
    for row in rows:
        assert row["method"] == "simclr"
        assert number(row["adversarial loss"]) <= number(row["bound"])
        assert number(row["clean loss"]) <= number(row["bound"])
    # Columns are not swapped: written out, the bound of the first task comes out.
    for row in rows[: len(sizes)]:
        out = 2**0.5 * number(row["head norm"]) * number(row["R(f)"])
        whole = number(row["clean loss"]) + out
        assert number(row["bound"]) == pytest.approx(whole, rel=0.03)
    assert number(rows[-1]["head norm"]) == pytest.approx(
        2 * number(rows[len(sizes) - 1]["head norm"]), rel=1e-2
    )


def test_without_tasks_there_is_no_column_for_them(
    results: Any, measured: Results, load: Any
) -> None:
    written = results("simclr", eps=0.03)
    written["arms"]["simclr"] |= {key: measured[key] for key in KEYS}
    table = bound_table([load(written)])
    assert table is not None
    assert table.header[:2] == ("method", "eps")


def test_what_was_not_measured_is_left_out(
    results: Any, measured: Results, load: Any
) -> None:
    bare = load(results("simclr", "deacl"))
    assert measures_table([bare]) is None
    assert bound_table([bare]) is None
    assert [*tables([bare], None)] == [""]
    written = results("simclr", "deacl", eps=0.03)
    own = {key: copy.deepcopy(measured[key]) for key in KEYS}
    own["distance"] = None
    own["representation"]["sigma_squared_sum"] = None
    for level in own["bound"]:
        level["relative_displacement"] = None
    written["arms"]["simclr"] |= own
    table = measures_table([load(written)])
    assert table is not None
    assert table.header == ("method", "feature std", "effective rank")
    cells = {row[0].split(" ")[0]: row[1:] for row in table.rows}
    assert cells["deacl"] == (labels.MISSING, labels.MISSING)


def test_the_page_and_its_caption_name_tasks_and_their_classes(
    given: Results, tmp_path: Path, save: Any
) -> None:
    folder = save(tmp_path / "run", given)
    page = write_report([folder], tmp_path / "out", against=None)[0].read_text()
    assert "seen is classes 0, 1, two" in page
    assert "unseen is 50 classes" in page
    assert f"## {BOUND}" in page
    lines = [line for line in page.splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", line)) > 3 for line in lines)


def test_the_lead_sets_arms_against_each_other_on_one_task(
    results: Any, load: Any
) -> None:
    from rrl_dist.report.tables import lead

    written = results("a-x", "b-x", "a-y", "b-y")
    for name, arm in written["arms"].items():
        arm |= {"arm": name[0], "task": name[2]}
    sentence = lead(load(written))
    assert "a-x stands" in sentence
    assert "a-y stands" in sentence
    assert not re.search(r"-x stands [^.]*\.\d points above \w-y", sentence)


@pytest.mark.parametrize(
    ("key", "inner", "value"),
    [
        ("distance", "low", 99.0),
        ("distance", "censored", None),
        ("representation", "effective_rank", "many"),
    ],
)
def test_an_odd_measure_is_told_in_one_line(
    given: Results, load: Any, key: str, inner: str, value: Any
) -> None:
    given["arms"]["simclr-seen"][key][inner] = value
    with pytest.raises(UserError, match="evaluate the run again") as error:
        load(given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0.00"),
        (0.04123, "0.0412"),
        (0.000412, "0.0004"),
        (0.4123, "0.412"),
        (4.123, "4.12"),
        (41.23, "41.2"),
        (412.3, "412"),
        (41234.0, "41,234"),
        (-4.123, "-4.12"),
    ],
)
def test_numbers_have_three_digits(value: float, shown: str) -> None:
    assert labels.number(value) == shown


def test_an_interval_has_the_decimals_of_its_number() -> None:
    assert labels.interval(99.6, 9.96, 104.2) == "99.6 [10.0, 104.2]"
