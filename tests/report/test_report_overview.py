"""Methods side by side, the vulnerability, and errors on corrupted images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rrl_dist.core.aggregate import Mean
from rrl_dist.core.errors import UserError
from rrl_dist.core.seeds import t_interval
from rrl_dist.core.storage import write_json
from rrl_dist.report import labels
from rrl_dist.report.corruption import corruption_table
from rrl_dist.report.load import load_run
from rrl_dist.report.markdown import OVERVIEW, tables, write_report
from rrl_dist.report.overview import overview_table
from rrl_dist.report.run import Run
from rrl_dist.report.seeds import seeds_table
from rrl_dist.report.terms import compare_terms
from rrl_dist.report.vulnerability import vulnerability_table

Results = dict[str, Any]


def mean(value: float, width: float = 0.1) -> dict[str, float | int]:
    return Mean(value, value - width, value + width, 50).as_dict()


def vulnerability(value: float, *, near: bool = False) -> Results:
    return {
        "estimator": "dv",
        "batch_size": 128,
        "log_batch_size": 4.852,
        "ceiling": 4.852,
        "batches": 8,
        "steps": 100,
        "eps": 0.05,
        "normal": mean(2.0 + value),
        "worst": mean(2.0),
        "vulnerability": {**mean(value), "std_error": 0.05},
        "adversarial_risk": mean(0.3),
        "near_ceiling": near,
    }


def corruptions(noise: float, blur: float) -> Results:
    def kind(error: float) -> Results:
        return {"error": mean(error, 0.01), "severities": {}}

    return {
        "generated": "regenerated",
        "error": mean((noise + blur) / 2, 0.01),
        "kinds": {"gaussian_noise": kind(noise), "defocus_blur": kind(blur)},
    }


Make = Callable[[int], Run]


@pytest.fixture
def make(tmp_path: Path, results: Any, save: Any) -> Make:
    """A run of two arms; numbers rise with the seed."""

    def made(seed: int) -> Run:
        written: Results = results("urrl", "simclr")
        for place, arm in enumerate(("urrl", "simclr")):
            lift = 0.01 * seed + 0.1 * place
            written["arms"][arm]["vulnerability"] = vulnerability(0.5 + lift)
            written["arms"][arm]["corruptions"] = corruptions(0.2 + lift, 0.3)
        written |= {"name": f"run-{seed}", "seed": seed}
        folder = save(tmp_path / f"run-{seed}", written)
        spent = {arm: {"seconds": 60.0 * (2 + seed)} for arm in written["arms"]}
        write_json(folder / "cost.json", {"arms": spent, "device": "CPU"})
        (folder / "config.yaml").write_text(f"seed: {seed}\n")
        return load_run(folder)

    return made


def shown(table: Any) -> dict[str, dict[str, str]]:
    """By method and title."""
    assert table is not None
    return {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}


def test_each_number_stands_with_its_interval(make: Make) -> None:
    run = make(0)
    found = shown(overview_table([run]))
    assert found["urrl (simclr)"]["vulnerability"] == "0.500 [0.400, 0.600]"
    assert found["simclr"]["corruption error, %"] == "30.0 [29.0, 31.0]"
    clean = run.arms[0].components["clean"]
    wanted = f"{100 * clean.value:.1f} [{100 * clean.low:.1f}, {100 * clean.high:.1f}]"
    assert found["urrl (simclr)"]["clean"] == wanted


def test_over_seeds_intervals_are_students_t(make: Make) -> None:
    runs = [make(seed) for seed in (0, 1, 3)]
    found = shown(overview_table(runs))["simclr"]
    over = t_interval([0.6, 0.61, 0.63])
    assert over.low is not None
    assert over.high is not None
    wanted = f"{over.mean:.3f} [{over.low:.3f}, {over.high:.3f}]"
    assert found["vulnerability"] == wanted
    assert "Student" in tables(runs, None)[OVERVIEW].caption


def test_minutes_are_a_seeds(make: Make) -> None:
    """The mean over seeds, whatever stands behind it."""
    runs = [make(seed) for seed in (0, 1, 3)]  # 2, 3 and 5 minutes
    assert minutes(overview_table(runs[:1])) == {"2.0"}
    assert minutes(overview_table(runs)) == minutes(seeds_table(runs)) == {"3.3"}


def minutes(table: Any) -> set[str]:
    """Of all methods, without intervals."""
    return {row["minutes"].split(" ")[0] for row in shown(table).values()}


def test_the_vulnerability_stands_beside_what_it_is_made_of(make: Make) -> None:
    found = shown(vulnerability_table([make(0)]))
    assert found["urrl (simclr)"] == {
        "method": "urrl (simclr)",
        "clean": "2.50 [2.40, 2.60]",
        "attacked": "2.00 [1.90, 2.10]",
        "vulnerability": "0.500 [0.400, 0.600]",
        "risk, an estimate": "0.300 [0.200, 0.400]",
        "": "",
    }
    assert found["simclr"]["clean"] == "2.60 [2.50, 2.70]"
    assert found["simclr"]["attacked"] == "2.00 [1.90, 2.10]"


def test_without_such_measures_there_is_no_table(
    tmp_path: Path, results: Any, save: Any
) -> None:
    run = load_run(save(tmp_path / "run", results("simclr")))
    assert overview_table([run]) is None
    assert vulnerability_table([run]) is None
    assert corruption_table([run]) is None


def test_kinds_have_a_column_each(make: Make) -> None:
    found = shown(corruption_table([make(0)]))
    assert [*found["simclr"]] == [
        "method",
        "images",
        "mean error",
        "defocus blur",
        "gaussian noise",
    ]
    assert found["simclr"]["gaussian noise"].startswith("30.0 ")
    assert found["simclr"]["defocus blur"].startswith("30.0 ")
    assert found["urrl (simclr)"]["gaussian noise"].startswith("20.0 ")


def test_where_images_come_from_and_both_conventions_are_told(
    tmp_path: Path, results: Any, save: Any
) -> None:
    """A published set beside a regenerated one, each by its name, in every table."""
    written = results("a", "b")
    own = corruptions(0.2, 0.3)
    both = {"cifar_c": mean(0.25, 0.01), "imagenet_c": mean(1.1, 0.05)}
    written["arms"]["a"]["corruptions"] = {
        **own,
        **{"generated": "published", "frost": None, "mce": both, "validation": None},
    }
    written["arms"]["b"]["corruptions"] = {
        **own,
        **{"frost": "synthetic frost", "mce": {**both, "imagenet_c": None}},
        "validation": mean(0.4, 0.01),
    }
    run = load_run(save(tmp_path / "run", written))
    table = corruption_table([run])
    assert table is not None
    first, second = shown(table).values()
    assert first["images"] == "published"
    assert second["images"] == "regenerated, synthetic frost"
    assert first["mCE (CIFAR-C)"] == "25.0 [24.0, 26.0]"
    assert first["mCE (ImageNet-C)"] == "110 [105, 115]"
    assert second["mCE (ImageNet-C)"] == first["validation kinds"] == labels.MISSING
    assert second["validation kinds"] == "40.0 [39.0, 41.0]"
    assert (
        "mCE (ImageNet-C) is the same with each kind's error divided" in table.caption
    )
    overview = overview_table([run])
    assert overview is not None
    assert "published or regenerated, synthetic frost" in overview.caption
    files = write_report([tmp_path / "run"], tmp_path / "out", against=None)
    assert tmp_path / "out" / "corruptions.md" in files
    page = (tmp_path / "out" / "corruptions.md").read_text()
    assert "| published |" in page
    assert "| regenerated, synthetic frost |" in page


def test_an_estimate_at_its_limit_is_said_to_be(
    tmp_path: Path, results: Any, save: Any
) -> None:
    written = results("a", "b")
    written["arms"]["a"]["vulnerability"] = vulnerability(0.5, near=True)
    written["arms"]["b"]["vulnerability"] = vulnerability(0.5)
    table = vulnerability_table([load_run(save(tmp_path / "run", written))])
    found = shown(table)
    assert "limit" in found["a (simclr)"][""]
    assert found["b (simclr)"][""] == ""
    assert table is not None
    assert "no bound" in table.caption
    assert "4.85" in table.caption


def test_terms_are_compared_by_each_kind(make: Make) -> None:
    found = {t.measure.key: t for t in compare_terms([make(0), make(1)], "simclr")}
    assert found["vulnerability"].difference.mean == pytest.approx(-0.1)
    assert found["error_gaussian_noise"].difference.mean == pytest.approx(-10)
    assert found["error_defocus_blur"].difference.mean == pytest.approx(0)
    assert found["corruption_error"].difference.mean == pytest.approx(-5)


def test_it_is_written_alone_too(tmp_path: Path, make: Make) -> None:
    make(0)
    files = write_report([tmp_path / "run-0"], tmp_path / "out", against=None)
    assert tmp_path / "out" / "overview.md" in files
    alone = (tmp_path / "out" / "overview.md").read_text()
    assert alone.strip() in files[0].read_text()


def test_a_damaged_entry_is_told(tmp_path: Path, results: Any, save: Any) -> None:
    written = results("a")
    written["arms"]["a"]["vulnerability"] = vulnerability(0.5)
    del written["arms"]["a"]["vulnerability"]["worst"]
    folder = save(tmp_path / "run", written)
    with pytest.raises(UserError, match="lack 'worst'"):
        load_run(folder)


def test_of_one_batch_no_interval_is_made_up(
    tmp_path: Path, results: Any, save: Any
) -> None:
    written = results("a")
    found = vulnerability(0.5)
    for key in ("normal", "worst", "vulnerability", "adversarial_risk"):
        found[key] |= {"low": None, "high": None, "count": 1}
    written["arms"]["a"]["vulnerability"] = found
    run = load_run(save(tmp_path / "run", written))
    assert shown(overview_table([run]))["a (simclr)"]["vulnerability"] == "0.500"
    assert shown(vulnerability_table([run]))["a (simclr)"]["clean"] == "2.50"
