"""A term on against the same run with it off."""

import copy
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from scipy import stats

from rrl_dist.core.aggregate import wilson
from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import read_json
from rrl_dist.report.load import load_run
from rrl_dist.report.markdown import write_report
from rrl_dist.report.run import Run
from rrl_dist.report.terms import MEASURES, compare_terms, terms_table

Results = dict[str, Any]
Make = Callable[..., Path]
# Of the arm "on", by seed: R(f), sigma^2 and distance are these times those of "off".
FACTORS = {0: 0.5, 1: 0.4, 2: 0.45}
CLEAN = {0: (340, 330), 1: (335, 336), 2: (350, 331)}  # right of 360, off and on


@pytest.fixture
def make(tmp_path: Path, results: Any, measured: Results, save: Any) -> Make:
    """Writes a run of arms "off" and "on", its measures those of a real evaluation."""

    def write(seed: int, *, epochs: int = 3, tasks: tuple[str, ...] = ()) -> Path:
        names = [f"{arm}-{t}" for t in tasks for arm in ("off", "on")]
        written: Results = results(*(names or ["off", "on"]), eps=0.03)
        for name, arm in written["arms"].items():
            first, _, task = name.partition("-")
            factor = 1.0 if first == "off" else FACTORS[seed]
            arm |= scaled(measured, factor * (1 + tasks.index(task) if task else 1))
            arm |= {"arm": first, "task": task} if task else {}
            right = CLEAN[seed][first == "on"]
            arm["components"]["clean"] = wilson(right, 360).as_dict()
        written |= {"name": f"x-{seed}", "seed": seed, "arm_order": [*written["arms"]]}
        folder = tmp_path / f"x-{seed}"
        folder.mkdir()
        config = {"seed": seed, "train": {"epochs": epochs}}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        saved: Path = save(folder, written)
        return saved

    return write


def scaled(measured: Results, factor: float) -> Results:
    own = {k: copy.deepcopy(measured[k]) for k in ("bound", "distance")}
    own["representation"] = dict(measured["representation"])
    for mean in (
        *(at["relative_displacement"] for at in own["bound"]),
        own["distance"],
    ):
        mean |= {key: mean[key] * factor for key in ("value", "low", "high")}
    for at in own["bound"]:
        gap = at["bound"]["value"] - at["clean_loss"]["value"]
        shift = (factor - 1) * gap
        at["bound"] |= {k: at["bound"][k] + shift for k in ("value", "low", "high")}
    own["representation"]["sigma_squared_sum"] *= factor
    return own


APART = {"vulnerability", "corruption_error"}  # not in suite=representation


def runs(make: Make, **options: Any) -> list[Run]:
    return [load_run(make(seed, **options)) for seed in FACTORS]


def test_differences_are_taken_seed_by_seed(make: Make, measured: Results) -> None:
    found = {term.measure.key: term for term in compare_terms(runs(make), "off")}
    assert [*found] == [measure.key for measure in MEASURES if measure.key not in APART]
    full = next(at for at in measured["bound"] if at["eps"] == pytest.approx(0.03))
    before = {
        "displacement": full["relative_displacement"]["value"],
        "bound_gap": full["bound"]["value"] - full["clean_loss"]["value"],
        "sigma_squared_sum": measured["representation"]["sigma_squared_sum"],
        "distance": measured["distance"]["value"],
    }
    for key, off in before.items():
        moved = [off * (factor - 1) for factor in FACTORS.values()]
        assert found[key].difference.mean == pytest.approx(statistics.fmean(moved))
        low, high = stats.t.interval(
            0.95, len(moved) - 1, statistics.fmean(moved), stats.sem(moved)
        )
        assert found[key].difference.low == pytest.approx(low)
        assert found[key].difference.high == pytest.approx(high)
        assert found[key].ratio == pytest.approx(statistics.fmean(FACTORS.values()))
    points = [(on - off) / 3.6 for off, on in CLEAN.values()]
    clean = found["clean_accuracy"]
    assert clean.difference.mean == pytest.approx(statistics.fmean(points), abs=1e-3)
    assert clean.difference.count == 3


def test_page_and_json_hold_the_same_numbers(make: Make, tmp_path: Path) -> None:
    folders = [make(seed) for seed in FACTORS]
    out = tmp_path / "out"
    written = write_report(folders, out, against="off")
    assert {"report.md", "terms.md", "terms.json"} <= {path.name for path in written}
    found = read_json(out / "terms.json")
    assert (found["against"], found["seeds"]) == ("off", [0, 1, 2])
    page = (out / "terms.md").read_text()
    assert page.strip() in (out / "report.md").read_text()
    rows = [line.split(" | ") for line in page.splitlines()[2:] if line[:1] == "|"]
    assert len(rows) == len(found["terms"]) == len(MEASURES) - len(APART)
    for row, term in zip(rows, found["terms"], strict=True):
        shown = float(row[4].split(" ")[0].replace(",", ""))
        assert shown == pytest.approx(term["difference"]["mean"], rel=0.05, abs=0.051)
        by_seed = [b - a for a, b in zip(term["off"], term["on"], strict=True)]
        assert statistics.fmean(by_seed) == pytest.approx(
            term["difference"]["mean"], abs=1e-3
        )
    assert "3 seeds (0, 1, 2)" in page
    again = write_report(folders, tmp_path / "again", against="off")
    assert [p.read_bytes() for p in again] == [p.read_bytes() for p in written]


def test_an_arm_is_held_against_the_other_on_its_own_task(make: Make) -> None:
    given = runs(make, tasks=("seen", "unseen"))
    terms = compare_terms(given, "off")
    assert {(term.arm.arm, term.arm.task) for term in terms} == {
        ("on", "seen"),
        ("on", "unseen"),
    }
    for term in terms:
        if term.measure.key == "sigma_squared_sum":
            # Across tasks the ratio would be another.
            assert term.ratio == pytest.approx(statistics.fmean(FACTORS.values()))
    table = terms_table(terms, given, "off")
    assert table.header[:3] == ("method", "task", "measure")


def test_one_seed_gives_no_interval(make: Make) -> None:
    run = load_run(make(0))
    terms = compare_terms([run], "off")
    assert all(term.difference.low is None for term in terms)
    table = terms_table(terms, [run], "off")
    assert "One seed" in table.caption
    assert all(
        "[" not in cell and "±" not in cell for row in table.rows for cell in row
    )


def test_a_measure_that_one_seed_lacks_is_left_out(make: Make) -> None:
    folders = [make(seed) for seed in FACTORS]
    written = read_json(folders[1] / "results.json")
    written["arms"]["off"]["distance"] = None
    from rrl_dist.core.storage import write_json

    write_json(folders[1] / "results.json", written)
    terms = compare_terms([load_run(folder) for folder in folders], "off")
    assert "distance" not in {term.measure.key for term in terms}
    assert "displacement" in {term.measure.key for term in terms}


def test_mistakes_are_told_in_one_line(make: Make, tmp_path: Path) -> None:
    one, other = load_run(make(0)), load_run(make(1, epochs=9))
    wrong = [
        ([one], "none", r"against=none is no arm; choose one of off, on"),
        ([one, other], "off", r"x-0, x-1 differ in train\.epochs"),
        ([one, one], "off", "have a seed in common"),
    ]
    for given, against, told in wrong:
        with pytest.raises(UserError, match=told) as error:
            compare_terms(given, against)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="no arm"):
        write_report([tmp_path / "x-0"], tmp_path / "out", against="none")
    assert not (tmp_path / "out").exists()


def test_an_arm_alone_has_nothing_to_be_held_against(
    results: Any, save: Any, tmp_path: Path
) -> None:
    run = load_run(save(tmp_path / "alone", results("simclr")))
    with pytest.raises(UserError, match="only arm"):
        compare_terms([run], "simclr")
