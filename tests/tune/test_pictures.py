from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.image import imread

from rrl_dist.tune.dimension import Choices, Dimension, Floats, Value
from rrl_dist.tune.findings import Findings
from rrl_dist.tune.importance import importances
from rrl_dist.tune.marks import Ruler, log_marks
from rrl_dist.tune.pictures import draw_pictures, front_picture, history_picture
from rrl_dist.tune.record import State
from rrl_dist.tune.space import Space
from tests.tune.trials import MIX, findings, record

ALL = {"front.png", "strength.png", "importance.png", "parallel.png", "history.png"}
BEST = (213, 94, 0)


def pixels(path: Path) -> "np.ndarray[tuple[int, ...], np.dtype[np.int64]]":
    found: np.ndarray[tuple[int, ...], np.dtype[np.int64]]
    found = (imread(path)[..., :3] * 255).round().astype(int)
    return found


def strong(path: Path) -> int:
    """Pixels in the colour of what is best."""
    return int((pixels(path) == BEST).all(axis=2).sum())


@pytest.mark.parametrize(
    ("states", "aims", "drawn"),
    [
        (["complete"], ["robust"], ALL - {"importance.png"}),
        (["failed"], ["robust"], set()),
        (["pruned"] * 3, ["robust"], {"strength.png", "parallel.png", "history.png"}),
        (["running"], ["cost"], set()),
        ([], ["robust"], set()),
        ([*MIX] * 6, ["robust", "cost"], ALL),
    ],
)
def test_what_there_is_to_see_is_drawn_and_nothing_is_cut_off(
    tmp_path: Path, states: Sequence[State], aims: Sequence[str], drawn: set[str]
) -> None:
    (tmp_path / "front.png").touch()  # of an earlier state of the sweep
    found = draw_pictures(findings(states, aims=aims), tmp_path)
    assert {path.name for path in found.values()} == drawn
    assert {path.name for path in tmp_path.iterdir()} == drawn
    for path in found.values():
        shown = pixels(path)
        for edge in (shown[0], shown[-1], shown[:, 0], shown[:, -1]):
            assert (edge == 255).all(), path.name


def test_trials_without_intervals_are_drawn(tmp_path: Path) -> None:
    found = draw_pictures(findings([*MIX] * 2, interval=False), tmp_path)
    assert {path.name for path in found.values()} == ALL


def test_the_same_trials_are_the_same_bytes(tmp_path: Path) -> None:
    made = findings([*MIX] * 2)
    once = {p.name: p.read_bytes() for p in draw_pictures(made, tmp_path).values()}
    with mpl.rc_context({"font.size": 30, "lines.linewidth": 9}):
        again = draw_pictures(made, tmp_path)
    assert {path.name: path.read_bytes() for path in again.values()} == once


def test_an_infeasible_trial_is_not_the_best(tmp_path: Path) -> None:
    made = findings(["complete"] * 3)
    bad = [replace(r, violations=(1.0,)) for r in made.records]
    for draw in (front_picture, history_picture):
        assert draw(made, tmp_path / "a.png")
        assert draw(replace(made, records=tuple(bad)), tmp_path / "b.png")
        assert strong(tmp_path / "a.png") > strong(tmp_path / "b.png") == 0


@pytest.mark.parametrize(("second", "left"), [("clean", True), ("cost", False)])
def test_the_front_falls_where_the_first_aim_is_given_up(
    tmp_path: Path, second: str, left: bool
) -> None:
    made = findings(["complete"] * 2, aims=["robust", second], interval=False)
    # The first is better in the second aim: up to its value there, its accuracy is what
    # can be had.
    values = [(0.2, 0.9), (0.6, 0.5)] if left else [(0.2, 30.0), (0.6, 90.0)]
    pairs = zip(made.records, values, strict=True)
    records = tuple(replace(r, values=v, measured={}) for r, v in pairs)
    path = tmp_path / "front.png"
    assert front_picture(replace(made, records=records), path)
    shown = pixels(path)[:600]  # above the legend
    columns = (shown == BEST).all(axis=2).sum(axis=0)
    assert (columns.argmax() < shown.shape[1] / 2) == left


def test_importance_is_that_of_the_setting_that_matters() -> None:
    made = findings(["complete"] * 16)
    rows = [
        replace(r, values=(0.05 * float(str(r.settings["steps"])),))
        for r in made.records
    ]
    shares = importances(replace(made, records=tuple(rows)))
    assert next(iter(shares)) == "steps"
    assert sum(shares.values()) == pytest.approx(1)
    assert "weight@b" not in shares  # not all trials have it
    assert importances(replace(made, records=tuple(rows[:3]))) == {}
    alike = [replace(r, values=(0.5,)) for r in rows]
    assert importances(replace(made, records=tuple(alike))) == {}


def ruler(low: float, high: float, *, log: bool) -> Ruler:
    return Ruler(Dimension("x", "x", Floats(low=low, high=high, log=log, step=None)))


@pytest.mark.parametrize(
    ("low", "high"), [(0.01, 100), (0.025, 0.1), (0.1, 0.9), (1e-9, 1e9), (3.1, 3.9)]
)
def test_marks_of_a_logarithmic_axis_are_few_and_in_the_range(
    low: float, high: float
) -> None:
    found = log_marks(low, high)
    assert 2 <= len(found) <= 6
    assert all(low * (1 - 1e-6) <= mark <= high * (1 + 1e-6) for mark in found)
    assert found == sorted(found)


def test_a_ruler_ends_at_the_ends() -> None:
    assert [ruler(0.01, 100, log=True).place(v) for v in (0.01, 1.0, 100)] == (
        pytest.approx([0, 0.5, 1])
    )
    assert ruler(0, 4, log=False).place(1) == 0.25
    assert ruler(2, 2, log=False).place(2) == 0.5
    values: tuple[Value, ...] = (None, True, 1)
    mixed = Ruler(Dimension("x", "x", Choices(values)))
    assert [mixed.place(value) for value in values] == [0, 0.5, 1]
    assert [word for _, word in mixed.ticks()] == ["null", "true", "1"]


def test_choices_alone_are_drawn(tmp_path: Path) -> None:
    space = Space((Dimension("kind", "kind", Choices(("a", "b"))),), ())
    records = tuple(
        record(i, "complete", 0.3 + 0.1 * i, settings={"kind": "ab"[i % 2]})
        for i in range(4)
    )
    made = Findings("sweep", records, findings([]).aims, space)
    drawn = draw_pictures(made, tmp_path)
    assert {p.name for p in drawn.values()} == ALL - {"importance.png"}
