import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrl_dist.core.aggregate import Proportion, wilson
from rrl_dist.report import labels
from rrl_dist.report.load import load_run
from rrl_dist.report.run import Arm, Run
from rrl_dist.report.tables import Table, lead, robustness_table

CELL = re.compile(r"(\d+\.\d) \[(\d+\.\d), (\d+\.\d)\]")

counts = st.integers(1, 10_000)
accuracies = counts.flatmap(
    lambda n: st.integers(0, n).map(lambda right: wilson(right, n))
)
names = st.text(min_size=1, max_size=40)
components = st.one_of(
    names,
    st.sampled_from(
        ["clean", "pgd20-linf@0.05", "apgd-t-linf@0.031372549", "fab-l2@0.5"]
    ),
)
arms = st.builds(
    Arm,
    name=names,
    objective=names,
    backbone=names,
    protocol=st.sampled_from(["slf", "alf"]),
    components=st.dictionaries(components, accuracies, max_size=8),
    worst=accuracies,
    curve=st.just(()),
    minutes=st.none() | st.floats(0, 1e5),
    arm=st.just("arm"),
)
runs = st.builds(
    Run,
    name=names,
    data=names,
    split=st.just("test"),
    seed=st.integers(0, 9),
    seeds=st.integers(1, 5),
    norm=st.sampled_from(["linf", "l2", "l1"]),
    eps=st.floats(1e-3, 20),
    curve_attack=st.none(),
    device=st.none() | names,
    arms=st.lists(arms, min_size=1, max_size=4).map(tuple),
)


def of_worst(*shares, counts=360):
    """A run whose arms a, b, ... keep these shares under the worst attack."""
    made = [
        Arm(
            name,
            "simclr",
            "cnn",
            "slf",
            {},
            wilson(round(v * counts), counts),
            (),
            None,
            name,
        )
        for name, v in zip("abcdef", shares, strict=False)
    ]
    return Run("r", "digits", "test", 0, 1, "linf", 0.05, None, None, tuple(made))


def assert_shows(cell: str, accuracy: Proportion) -> None:
    match = CELL.fullmatch(cell)
    assert match is not None
    ends = accuracy.value, accuracy.low, accuracy.high
    for shown, true in zip(match.groups(), ends, strict=True):
        assert abs(float(shown) - 100 * true) <= 0.05 + 1e-9


@given(st.lists(runs, min_size=1, max_size=3))
def test_cells_are_the_percentages_and_intervals_of_the_input(given_runs):
    table = robustness_table(given_runs)
    given_arms = [arm for run in given_runs for arm in run.arms]
    clean_alone = {key for arm in given_arms for key in arm.components} == {"clean"}
    worst = [] if clean_alone else ["worst case"]
    assert list(table.header[len(table.header) - 1 - len(worst) : -1]) == worst
    assert len(table.rows) == len(given_arms)
    for row, arm in zip(table.rows, given_arms, strict=True):
        _, _, *numbers, _ = row
        if not clean_alone:
            assert_shows(numbers.pop(), arm.worst)
        shown = [cell for cell in numbers if cell != labels.MISSING]
        found = sorted(map(labels.percent, arm.components.values()))
        assert sorted(shown) == found
        if "clean" in arm.components:
            assert_shows(row[2], arm.components["clean"])
        else:
            assert row[2] == labels.MISSING


@given(st.lists(accuracies, min_size=1, max_size=4))
def test_without_an_attack_there_is_no_worst_case(clean):
    run = of_worst(*[0.5] * len(clean))
    found = zip(run.arms, clean, strict=True)
    only = [replace(arm, components={"clean": accuracy}) for arm, accuracy in found]
    table = robustness_table([replace(run, arms=tuple(only))])
    assert table.header == ("method", "backbone", "clean", "minutes")
    for row, accuracy in zip(table.rows, clean, strict=True):
        assert_shows(row[2], accuracy)


@given(st.lists(runs, min_size=1, max_size=3))
def test_markdown_has_as_many_cells_on_each_row(given_runs):
    table = robustness_table(given_runs)
    lines = table.to_markdown().split("\n")[: len(table.rows) + 2]
    # A bar is a border unless an odd number of backslashes stands before it.
    bars = [
        sum(len(before) % 2 == 0 for before, _ in re.findall(r"((?:\\)*)(\|)", line))
        for line in lines
    ]
    assert set(bars) == {len(table.header) + 1}


@given(st.lists(runs, min_size=1, max_size=3))
def test_text_fits_a_hundred_columns_and_has_no_codes(given_runs):
    from rich.cells import cell_len

    table = robustness_table(given_runs)
    printable = replace(
        table,
        header=tuple(map(strip_controls, table.header)),
        rows=tuple(tuple(map(strip_controls, row)) for row in table.rows),
        caption=strip_controls(table.caption),
    )
    text = printable.to_text()
    assert max(map(cell_len, text.split("\n"))) <= 100
    assert "\x1b" not in text


def strip_controls(text):
    return "".join(c if c.isprintable() else "?" for c in text)


def test_text_shows_every_number_even_where_it_forces_terminals(
    tmp_path, results, save, monkeypatch
):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "20")
    table = robustness_table([load_run(save(tmp_path, results("simclr", "deacl")))])
    text = table.to_text()
    assert "\x1b" not in text
    for row in table.rows:
        for part in " ".join(row[2:]).replace("] ", "]\n").split("\n"):
            value, _, interval = part.partition(" ")
            assert value in text
            assert interval in text


def test_columns_without_room_go_below_with_their_labels():
    wide = Table(
        ("method", "backbone", *(f"attack{i} eps" for i in range(12))),
        (("deacl", "cnn", *(f"{i}.0 [10.0, 20.0]" for i in range(12))),),
        "caption",
        labels=2,
    )
    text = wide.to_text()
    assert max(map(len, text.splitlines())) <= 100
    assert text.count("method") == text.count("deacl") > 1
    assert all(
        f"attack{i}\n" in text + "\n" or f"attack{i} " in text for i in range(12)
    )


def test_bars_and_marks_in_names_are_escaped():
    table = Table(("a|b",), (("x\\|*y*\nz",),), "c <b>", labels=1)
    lines = table.to_markdown().splitlines()
    assert lines[0] == r"| a\|b |"
    assert lines[2] == r"| x\\\|\*y\* z |"
    assert lines[4] == r"c \<b>"


def test_attacks_stand_from_weak_to_strong_and_several_runs_are_named(
    tmp_path, results, save
):
    run = load_run(save(tmp_path, results("simclr")))
    table = robustness_table([run, replace(run, name="again")])
    assert table.header == (
        "method",
        "backbone",
        "clean",
        "PGD-20 Linf 0.05",
        "APGD-CE Linf 0.05",
        "worst case",
        "minutes",
    )
    assert [row[0] for row in table.rows] == ["demo: simclr", "again: simclr"]


def test_caption_tells_data_count_radius_seed_and_what_intervals_cover(
    tmp_path, results, save
):
    run = load_run(save(tmp_path, results("simclr", eps=8 / 255)))
    caption = robustness_table([run]).caption
    for fact in ("digits", "360 test images", "0.03137 (8/255)", "one seed", "95 %"):
        assert fact in caption
    assert "sampling of test images only" in caption
    assert "3 seeds" in robustness_table([replace(run, seeds=3)]).caption


@pytest.mark.parametrize(
    ("component", "title"),
    [
        ("clean", "clean"),
        ("pgd20-linf@0.05", "PGD-20 Linf 0.05"),
        ("apgd-ce-linf@0.03137254901960784", "APGD-CE Linf 8/255"),
        ("apgd-t-l2@0.5", "APGD-T L2 0.5"),
        ("autoattack-linf@0.05", "AutoAttack Linf 0.05"),
        ("square-l1@12.0", "Square L1 12"),
        ("pgd20", "PGD-20"),
        ("apgd-ce-l2", "APGD-CE L2"),
        ("x-linf@1.2.3", "x-linf@1.2.3"),
        ("gaussian_noise 3", "gaussian_noise 3"),
    ],
)
def test_attacks_are_titled_as_in_papers(component, title):
    assert labels.attack(component) == title


@given(st.integers(1, 254))
def test_whole_8_bit_steps_are_recognized(steps):
    assert labels.of_255(steps / 255) == f"{steps}/255"
    assert labels.of_255((steps + 0.5) / 255) is None


def test_lead_sets_the_best_against_the_first():
    sentence = lead(of_worst(0.2, 0.5, 0.8))
    assert "c stands 60.0 points above a" in sentence
    assert "Linf 0.05" in sentence
    assert "do not overlap" in sentence


def test_lead_says_when_the_first_is_itself_the_best():
    assert "a stands 30.0 points above b" in lead(of_worst(0.8, 0.5, 0.2))


def test_lead_owns_up_to_overlap_and_to_no_difference():
    assert "the intervals overlap" in lead(of_worst(0.50, 0.52))
    assert "do not differ" in lead(of_worst(0.5, 0.5))
    assert "do not overlap" not in lead(of_worst(0.5, 0.5))


def test_lead_of_one_arm_is_its_own_number():
    run = of_worst(0.5)
    assert labels.percent(run.arms[0].worst) in lead(run)


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 2000))
def test_lead_claims_a_gap_only_where_the_intervals_leave_one(first, second, count):
    run = of_worst(first, second, counts=count)
    a, b = (arm.worst for arm in run.arms)
    apart = a.low > b.high or b.low > a.high
    assert ("do not overlap" in lead(run)) == apart
