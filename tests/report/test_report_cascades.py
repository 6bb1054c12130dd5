"""What attacks in turn have left right, and runs of classifiers without an encoder."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rrl_dist.core.errors import UserError
from rrl_dist.report.cascades import cascade_table
from rrl_dist.report.load import load_run
from rrl_dist.report.markdown import CASCADES, tables, write_report
from rrl_dist.report.run import Run
from tests.report.conftest import share

Results = dict[str, Any]
NAME = "autoattack-linf@0.05"
STEPS = [("clean", 0.9), ("apgd-ce", 0.6), ("apgd-t", 0.5), ("square", 0.5)]


@pytest.fixture
def given(results: Any) -> Results:
    """Two arms, one of which was attacked by several attacks in turn."""
    written: Results = results("simclr", "deacl")
    after = [{"attack": name, **share(value)} for name, value in STEPS]
    written["arms"]["deacl"]["components"][NAME] = {**share(0.5), "after": after}
    return written


@pytest.fixture
def load(tmp_path: Path, save: Any) -> Callable[[Results], Run]:
    return lambda written: load_run(save(tmp_path / "run", written))


def test_each_attack_has_a_row_in_its_turn(given: Results, load: Any) -> None:
    table = cascade_table([load(given)])
    assert table is not None
    assert {row[0] for row in table.rows} == {"deacl (simclr)"}
    assert {row[1] for row in table.rows} == {"AutoAttack Linf 0.05"}
    assert [row[2] for row in table.rows] == ["clean", "APGD-CE", "APGD-T", "Square"]
    values = [f"{100 * value:.1f}" for _, value in STEPS]
    assert [row[3].split(" ")[0] for row in table.rows] == values
    # Of 360 images; what is broken and what is left add up to all.
    assert [int(row[4]) for row in table.rows] == [36, 108, 36, 0]
    assert all("[" in row[3] for row in table.rows)


def test_seeds_share_a_row_of_each_attack(
    given: Results, load: Any, tmp_path: Path, save: Any
) -> None:
    folders = []
    for seed, less in ((0, 0.0), (1, 0.1)):
        written = copy.deepcopy(given)
        written |= {"name": f"demo-{seed}", "seed": seed}
        steps = written["arms"]["deacl"]["components"][NAME]["after"]
        for step, (_, value) in zip(steps[1:], STEPS[1:], strict=True):
            step |= share(value - less)
        folders.append(save(tmp_path / str(seed), written))
        (folders[-1] / "config.yaml").write_text(f"seed: {seed}\n")
    table = cascade_table([load_run(folder) for folder in folders])
    assert table is not None
    assert len(table.rows) == len(STEPS)
    cells = {row[2]: row[3:] for row in table.rows}
    assert cells["clean"] == ("90.0 ± 0.0", "36, 36")
    assert cells["APGD-CE"] == ("55.0 ± 7.1", "108, 144")


def test_the_page_has_the_table_where_there_is_something_in_it(
    given: Results, results: Any, tmp_path: Path, save: Any, load: Any
) -> None:
    page = write_report([save(tmp_path / "run", given)], tmp_path, against=None)[0]
    assert f"## {CASCADES}" in page.read_text()
    bare = load(results("simclr"))
    assert cascade_table([bare]) is None
    assert CASCADES not in tables([bare], None)


def test_an_odd_step_is_told_in_one_line(given: Results, load: Any) -> None:
    del given["arms"]["deacl"]["components"][NAME]["after"][1]["low"]
    with pytest.raises(UserError, match="lack 'low'; evaluate the run again"):
        load(given)


@pytest.fixture
def stranger(results: Any) -> Results:
    """As a classifier leaves it that shows logits alone."""
    written: Results = results("timm-resnet18")
    written["arms"]["timm-resnet18"] |= {
        "objective": None,
        "protocol": None,
        "backbone": "timm:resnet18",
        "bound": None,
        "distance": None,
        "representation": None,
    }
    return written


def test_a_classifier_without_an_encoder_is_shown(
    stranger: Results, tmp_path: Path, save: Any
) -> None:
    folder = save(tmp_path / "run", stranger)
    (arm,) = load_run(folder).arms
    assert (arm.objective, arm.protocol) == (None, None)
    assert (arm.levels, arm.distance, arm.representation) == ((), None, None)
    page = write_report([folder], tmp_path / "out", against=None)[0].read_text()
    assert "| timm-resnet18 | timm:resnet18 |" in page
    assert "timm-resnet18 keeps" in page
    assert "None" not in page
    assert "Linf eps 0.05, one seed" in page


def test_it_stands_beside_a_trained_one(
    stranger: Results, results: Any, tmp_path: Path, save: Any
) -> None:
    trained = {**results("deacl"), "name": "other"}
    folders = [save(tmp_path / "a", stranger), save(tmp_path / "b", trained)]
    page = write_report(folders, tmp_path / "out", against=None)[0].read_text()
    assert "| demo: timm-resnet18 | timm:resnet18 |" in page
    assert "| other: deacl (simclr) | small\\_cnn |" in page.replace("_", "\\_")
