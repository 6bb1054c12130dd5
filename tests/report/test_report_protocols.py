"""Arms that were judged by several protocols and heads, in one table."""

import statistics
from pathlib import Path
from typing import Any

import pytest
import yaml
from scipy import stats

from rrl_dist.core.aggregate import wilson
from rrl_dist.report.load import load_run
from rrl_dist.report.markdown import EACH_HEAD, leads, tables, write_report
from rrl_dist.report.protocols import protocols_table
from rrl_dist.report.terms import compare_terms

COUNT = 360
# By arm, protocol and head seed: how many images survive.
RIGHT = {
    ("simclr", "slf"): (100, 104, 111),
    ("simclr", "urrl"): (150, 152, 157),
    ("deacl", "slf"): (200, 207, 205),
    ("deacl", "urrl"): (180, 190, 181),
}


def judged(results: Any, *, heads: int = 3, add: int = 0) -> dict[str, Any]:
    names = {
        (arm, protocol, seed): f"{arm}-{protocol}"
        + (f"-head{seed}" if heads > 1 else "")
        for arm, protocol in RIGHT
        for seed in range(heads)
    }
    written: dict[str, Any] = results(*names.values())
    written["arm_order"] = list(names.values())
    for (arm, protocol, seed), name in names.items():
        right = RIGHT[arm, protocol][seed] + add
        own = {"arm": arm, "protocol": protocol, "objective": arm}
        own |= {"head_seed": seed} if heads > 1 else {}
        written["arms"][name] |= {**own, "worst": wilson(right, COUNT).as_dict()}
    return written


def in_percent(*counts: float) -> list[float]:
    return [100 * count / COUNT for count in counts]


def interval(values: list[float]) -> str:
    mean = statistics.mean(values)
    half = stats.t.ppf(0.975, len(values) - 1) * statistics.stdev(values)
    half /= len(values) ** 0.5
    return f"{mean:.1f} [{mean - half:.1f}, {mean + half:.1f}]"


def test_a_row_for_each_method_and_columns_for_each_protocol(
    tmp_path: Path, results: Any, save: Any
) -> None:
    run = load_run(save(tmp_path, judged(results)))
    table = protocols_table([run])
    assert table is not None
    columns = [f"{p} {what}" for p in ("SLF", "URRL") for what in ("clean", "robust")]
    assert table.header == ("method", "heads", *columns)
    assert [row[:2] for row in table.rows] == [("simclr", "3"), ("deacl", "3")]
    for row, arm in zip(table.rows, ("simclr", "deacl"), strict=True):
        for place, protocol in ((3, "slf"), (5, "urrl")):
            assert row[place] == interval(in_percent(*RIGHT[arm, protocol]))
    assert "3 head seeds (0, 1, 2): intervals are Student's t" in table.caption


def test_one_head_has_the_interval_of_test_images(
    tmp_path: Path, results: Any, save: Any
) -> None:
    run = load_run(save(tmp_path, judged(results, heads=1)))
    table = protocols_table([run])
    assert table is not None
    share = wilson(100, COUNT)
    told = f"{100 * share.value:.1f} [{100 * share.low:.1f}, {100 * share.high:.1f}]"
    assert table.rows[0][:2] == ("simclr", "1")
    assert table.rows[0][3] == told
    assert "cover the sampling of test images only" in table.caption


def test_where_each_arm_has_one_head_nothing_is_added(
    tmp_path: Path, results: Any, save: Any
) -> None:
    assert protocols_table([load_run(save(tmp_path, results("a", "b")))]) is None


@pytest.fixture
def seeds(tmp_path: Path, results: Any, save: Any) -> list[Path]:
    """Two runs that are training seeds, each with three heads."""
    folders = []
    for seed, add in ((0, 0), (1, 9)):
        folder = tmp_path / f"x-{seed}"
        folder.mkdir()
        own = {"name": folder.name, "seed": seed}
        (folder / "config.yaml").write_text(yaml.safe_dump(own))
        folders.append(save(folder, judged(results, add=add) | own))
    return folders


def test_heads_of_one_encoder_are_no_training_seeds(seeds: list[Path]) -> None:
    """Over two runs there are two numbers, each the mean over its heads."""
    table = protocols_table([load_run(folder) for folder in seeds])
    assert table is not None
    own = RIGHT["simclr", "slf"]
    means = in_percent(sum(own) / 3, sum(own) / 3 + 9)
    expected = interval(means)
    assert table.rows[0][3].split(" ")[0] == expected.split(" ")[0]
    low = float(expected.split("[")[1].split(",")[0])
    assert table.rows[0][3].split("[")[1].startswith(f"{max(low, 0):.1f},")
    told = "2 seeds (0, 1), each the mean over 3 head seeds (0, 1, 2)"
    assert told in table.caption


def test_it_is_written_and_told_by_protocol(
    tmp_path: Path, results: Any, save: Any
) -> None:
    run = save(tmp_path / "run", judged(results))
    files = write_report([run], tmp_path / "out", against=None)
    page = (tmp_path / "out/protocols.md").read_text()
    assert tmp_path / "out/protocols.md" in files
    assert page.splitlines()[0].startswith("| method | heads | SLF clean")
    shown = tables([load_run(run)], None)
    assert list(shown)[:2] == ["", EACH_HEAD]
    assert len(shown[EACH_HEAD].rows) == 12
    (told,) = leads([load_run(run)])
    moved = in_percent(
        *(
            a - b
            for a, b in zip(
                *(RIGHT[a, "slf"] for a in ("deacl", "simclr")), strict=True
            )
        )
    )
    assert f"deacl-slf stands {statistics.mean(moved):.1f} points above" in told
    assert "deacl-urrl stands" in told


def test_terms_are_set_against_each_other_within_a_protocol(
    tmp_path: Path, results: Any, save: Any
) -> None:
    run = load_run(save(tmp_path, judged(results)))
    robust = {
        term.arm.protocol: term
        for term in compare_terms([run], "simclr")
        if term.measure.key == "robust_accuracy"
    }
    for protocol in ("slf", "urrl"):
        off, on = (in_percent(*RIGHT[a, protocol]) for a in ("simclr", "deacl"))
        assert robust[protocol].off == pytest.approx(off, abs=1e-3)
        assert robust[protocol].on == pytest.approx(on, abs=1e-3)
        assert robust[protocol].difference.count == 3
