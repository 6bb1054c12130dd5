"""Runs that differ in their seed alone, in one table."""

import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from scipy import stats

from rrl_dist.core.aggregate import wilson
from rrl_dist.core.errors import UserError
from rrl_dist.report.entries import are_seeds, not_seeds
from rrl_dist.report.load import load_run
from rrl_dist.report.markdown import leads, tables, write_report
from rrl_dist.report.seeds import seeds_table

Make = Callable[..., Path]
CONFIG = {"train": {"epochs": 3}, "cluster": {"workers": 1}, "loader": "auto"}


@pytest.fixture
def seed(tmp_path: Path, results: Any, save: Any) -> Make:
    """Writes a run of arms "simclr" and "deacl" whose worst cases are given."""

    def make(
        number: int,
        *worst: int,
        config: Mapping[str, Any] = CONFIG,
        configured: int | None = None,
    ) -> Path:
        written = results("simclr", "deacl")
        name = f"x-{number}"
        written |= {"name": name, "seed": number, "arm_order": ["simclr", "deacl"]}
        for arm, right in zip(("simclr", "deacl"), worst, strict=False):
            written["arms"][arm]["worst"] = wilson(right, 360).as_dict()
        folder = tmp_path / name
        own = {"seed": number if configured is None else configured, "name": name}
        folder.mkdir()
        (folder / "config.yaml").write_text(yaml.safe_dump({**config, **own}))
        saved: Path = save(folder, written)
        return saved

    return make


def test_cells_are_mean_and_standard_deviation_over_seeds(seed: Make) -> None:
    worst = {0: (180, 300), 1: (90, 310), 2: (36, 290)}
    runs = [load_run(seed(number, *right)) for number, right in worst.items()]
    table = seeds_table(runs)
    assert [row[0] for row in table.rows] == ["simclr", "deacl (simclr)"]
    for row, rights in zip(table.rows, zip(*worst.values(), strict=True), strict=True):
        shares = [100 * right / 360 for right in rights]
        mean, deviation = statistics.fmean(shares), statistics.stdev(shares)
        assert row[-2] == f"{mean:.1f} ± {deviation:.1f}"
    assert "3 seeds (0, 1, 2)" in table.caption
    assert "± is the standard deviation over training seeds" in table.caption
    assert "one seed" not in table.caption


def test_what_is_printed_first_and_what_is_written(seed: Make, tmp_path: Path) -> None:
    folders = [seed(number, 180, 300) for number in (0, 1)]
    runs = [load_run(folder) for folder in folders]
    shown = tables(runs, None)
    assert [*shown] == ["", "Each seed"]
    assert len(shown[""].rows) == 2
    assert len(shown["Each seed"].rows) == 4
    page = write_report(folders, tmp_path / "out", against=None)[0].read_text()
    for table in shown.values():
        assert table.to_markdown().strip() in page


def test_the_lead_gives_the_t_interval_of_paired_differences(seed: Make) -> None:
    worst = {0: (180, 300), 1: (90, 310), 2: (36, 290)}
    runs = [load_run(seed(number, *right)) for number, right in worst.items()]
    (sentence,) = leads(runs)
    moved = [(b - a) / 3.6 for a, b in worst.values()]
    low, high = stats.t.interval(0.95, 2, statistics.fmean(moved), stats.sem(moved))
    assert f"deacl stands {statistics.fmean(moved):.1f} points above simclr" in sentence
    assert f"[{low:.1f}, {high:.1f}]" in sentence
    assert ("do not tell them apart" in sentence) == (low <= 0)


def test_the_lead_owns_up_where_seeds_disagree(seed: Make) -> None:
    runs = [load_run(seed(0, 100, 200)), load_run(seed(1, 200, 120))]
    assert "do not tell them apart" in leads(runs)[0]


@pytest.mark.parametrize(
    ("other", "told"),
    [
        ({**CONFIG, "train": {"epochs": 4}}, "train.epochs"),
        ({**CONFIG, "train": {"epochs": 3, "more": None}}, "train.more"),
        ({**CONFIG, "tasks": {}}, "tasks"),
        ({key: CONFIG[key] for key in ("train", "cluster")}, "loader"),
        ({**CONFIG, "cluster": {"workers": 2}}, None),
        ({**CONFIG, "storage": "/b", "betons": "/c", "plan": False}, None),
        ({**CONFIG, "evaluate": {"unit_atoms": 4}}, None),
    ],
)
def test_runs_that_differ_in_more_keep_a_row_each(
    seed: Make, other: Mapping[str, Any], told: str | None
) -> None:
    runs = [load_run(seed(0)), load_run(seed(1, config=other))]
    assert are_seeds(runs) == (told is None)
    assert not_seeds(runs) == (told and f"differ in {told}")
    assert len(tables(runs, None)[""].rows) == (4 if told else 2)


def test_one_seed_twice_is_not_two_seeds(seed: Make, tmp_path: Path) -> None:
    one = load_run(seed(0))
    (tmp_path / "x-0").rename(tmp_path / "before")
    runs = [one, load_run(seed(0))]
    assert not_seeds(runs) == "have a seed in common"
    assert not are_seeds(runs[:1])


def test_results_of_an_earlier_attempt_are_no_seed(seed: Make) -> None:
    runs = [load_run(seed(0)), load_run(seed(1, configured=5))]
    assert not are_seeds(runs)


def test_a_run_without_its_configuration_is_no_seed(seed: Make) -> None:
    folder = seed(1)
    (folder / "config.yaml").unlink()
    assert not are_seeds([load_run(seed(0)), load_run(folder)])


@pytest.mark.parametrize("content", [b"a: [1", b"\xff\xfe\x00", b"a: 1\na: 2\n"])
def test_a_damaged_configuration_is_told_in_one_line(
    seed: Make, content: bytes
) -> None:
    folder = seed(0)
    (folder / "config.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"config\.yaml cannot be read") as error:
        load_run(folder)
    assert "\n" not in str(error.value)
