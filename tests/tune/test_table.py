import json
from dataclasses import replace
from pathlib import Path

import pytest

from rrl_dist.core.storage import read_json
from rrl_dist.report.labels import MISSING
from rrl_dist.tune.aims import Estimate, parse_aims
from rrl_dist.tune.dimension import Dimension, Floats, Value
from rrl_dist.tune.findings import Findings, Measure, written
from rrl_dist.tune.page import write_page
from rrl_dist.tune.space import Space
from rrl_dist.tune.table import answer, trials_table
from tests.tune.trials import MIX, findings, record


def rows(made: Findings) -> list[dict[str, str]]:
    table = trials_table(made, made.ordered)
    return [dict(zip(table.header, row, strict=True)) for row in table.rows]


def test_best_comes_first_and_all_trials_are_there() -> None:
    made = findings([*MIX] * 2)
    bad = replace(made.records[6], violations=(1.0,), masked=("it rises",))
    made = replace(made, records=(*made.records[:6], bad, *made.records[7:]))
    told = [(row["trial"], row["state"]) for row in rows(made)]
    assert told == [
        ("5", "best"),
        ("1", "complete"),
        ("0", "complete"),
        ("6", "infeasible"),
        ("9", "running"),
        ("4", "running"),
        ("7", "pruned"),
        ("2", "pruned"),
        ("3", "failed"),
        ("8", "failed"),
    ]
    best, *_, failed = rows(made)
    assert best["robust accuracy (%)"] == "30.0 [25.0, 35.0]"
    assert (best["probes"], best["seconds"], best["weight"]) == ("1", "60", "0.249")
    assert failed["robust accuracy (%)"] == MISSING
    assert failed["why"] == "the loss is not finite"
    named = {row["trial"]: row for row in rows(made)}
    assert named["6"]["why"] == "it rises"
    assert named["9"]["seconds"] == MISSING
    assert named["7"]["robust accuracy (%)"] == "~34.0 [24.0, 44.0]"
    assert {row["weight@b"] for row in rows(made)} > {MISSING}


def test_two_aims_have_a_front() -> None:
    made = findings(["complete"] * 3, aims=["robust", "clean"])
    worse = record(3, "complete", 0.1, 0.5, aims=["robust", "clean"])
    made = replace(made, records=(*made.records, worse))
    told = [(row["trial"], row["state"]) for row in rows(made)]
    assert told == [("2", "front"), ("1", "front"), ("0", "front"), ("3", "complete")]
    assert answer(made).startswith("The front has 3 trials: trial 2 (weight=0.144")
    assert "to trial 0 (" in answer(made)


def test_a_floor_that_is_missed_is_told() -> None:
    aims = parse_aims({"aims": ["robust"], "floors": {"clean": 0.95}})
    low = record(0, "complete", 0.5, 0.9, violations=(0.05, 0.0))
    made = replace(findings([]), records=(low,), aims=aims)
    (row,) = rows(made)
    assert row["state"] == "infeasible"
    assert row["why"] == "clean 90.0 is below 95.0"
    assert row["clean accuracy (%)"] == "90.0 [85.0, 95.0]"


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (0.5, 0.48, "overlap, so they are not told apart."),
        (0.5, 0.3, "do not overlap."),
    ],
)
def test_the_answer_says_whether_the_next_best_differs(
    first: float, second: float, said: str
) -> None:
    made = replace(
        findings([]),
        records=(record(0, robust=second), record(1, robust=first)),
    )
    told = answer(made)
    assert told.startswith(
        "Best is trial 1 (weight=0.12, kind=b, steps=2, weight@b=1.2e-05) with robust "
        "accuracy 50.0 [45.0, 55.0] %; its interval and that of trial 0, the next best"
    )
    assert told.endswith(said)


def test_without_a_feasible_trial_there_is_no_answer() -> None:
    assert answer(findings(["failed", "pruned"])) == (
        "There is no answer yet (2 trials: 1 pruned, 1 failed)."
    )
    assert answer(findings([])) == "There is no answer yet (no trial yet)."
    assert "the only one that is feasible" in answer(findings(["complete"]))


def test_names_are_as_short_as_sets_them_apart() -> None:
    names = ["objective.weight", "objective.base.temperature", "objective.temperature"]
    names += ["objective.weight@b", "optim.lr", "objective"]
    domain = Floats(low=0.0, high=1.0, log=False, step=None)
    space = Space(tuple(Dimension(n, n, domain) for n in names), ())
    assert [*replace(findings([]), space=space).short.values()] == [
        "weight",
        "base.temperature",
        "objective.temperature",
        "weight@b",
        "lr",
        "objective",
    ]


@pytest.mark.parametrize(
    ("name", "cell"),
    [
        ("robust", "41.2 [30.0, 50.0]"),
        ("components.pgd20-linf@0.05", "41.2 [30.0, 50.0]"),
        ("distance", "0.412 [0.300, 0.500]"),
        ("cost", "0.01 [0.01, 0.01]"),
    ],
)
def test_measures_have_their_unit(name: str, cell: str) -> None:
    assert Measure.of(name).cell(Estimate(0.412, 0.3, 0.5)) == cell


def test_settings_are_written_short() -> None:
    values: list[Value] = [0.123456, 1234.5, 1e-5, 7, "a", None, True, 1.0]
    told = ["0.123", "1230", "1e-05", "7", "a", "null", "true", "1"]
    assert [written(value) for value in values] == told


def test_the_page_has_table_answer_pictures_and_all_numbers(tmp_path: Path) -> None:
    made = findings([*MIX] * 2)
    lost = replace(made.records[0], measured={"x": Estimate(float("nan"))})
    made = replace(made, records=(lost, *made.records[1:]))
    page, numbers, *pictures = write_page(tmp_path / "answer", made)
    text = page.read_text()
    assert text.startswith(f"# sweep\n\n{answer(made)}\n\n| trial | state | why |")
    for path in pictures:
        assert f"]({path.name})" in text
        assert path.is_file()
    told = read_json(numbers)
    assert [trial["number"] for trial in told["trials"]] == [*range(10)]
    assert told["front"] == [6]
    assert told["trials"][0]["measured"]["x"]["value"] is None
    assert told["trials"][1]["looks"][0]["step"] == 20
    json.dumps(told, allow_nan=False)


def test_a_sweep_without_trials_has_a_page(tmp_path: Path) -> None:
    page, numbers = write_page(tmp_path, findings([]))
    assert page.read_text() == "# sweep\n\nThere is no answer yet (no trial yet).\n"
    assert read_json(numbers)["trials"] == []
