"""kill -9 in the middle of each stage loses nothing, here and under Ray."""

import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.cli.harness import TINY, kill_when, rrl
from tests.longer import long

pytestmark = pytest.mark.slow

DEBUG = ("run", *TINY, "cluster=debug")
LOCAL = ("run", *TINY, "cluster=local")
MIDDLES = (
    "runs/demo/stages/pretrain-simclr-*/checkpoints/step-*.json",
    "runs/demo/stages/pretrain-deacl-*/checkpoints/step-*.json",
    "runs/demo/stages/evaluate-simclr-*/rows/clean/*.parquet",
    "runs/demo/stages/probe-deacl-*/checkpoints/step-*.json",
    "runs/demo/stages/evaluate-deacl-*/rows/pgd*/*.parquet",
)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted run")  # a space in its path
    rrl(folder, *DEBUG)
    return folder


def results(folder: Path) -> bytes:
    return (folder / "runs/demo/results.json").read_bytes()


@pytest.mark.parametrize("middles", [MIDDLES[1::2], long(MIDDLES)])
def test_killed_in_each_stage_and_restarted_ends_with_equal_results(
    middles: Sequence[str], uninterrupted: Path, tmp_path: Path
) -> None:
    if find_spec("ffcv") is not None:
        kill_when(tmp_path, "betons/.digits-pretrain-*.beton.*", DEBUG)
        assert not list((tmp_path / "betons").glob("*.beton"))
    for middle in middles:
        kill_when(tmp_path, middle, DEBUG)
        stage = middle.split("/")[3]
        assert not any((tmp_path / "runs/demo/stages").glob(f"{stage}/done.json"))
    rrl(tmp_path, *DEBUG)
    assert results(tmp_path) == results(uninterrupted)
    assert not list(tmp_path.rglob(".*.parquet.*")), "half-written rows are left"


def test_killed_under_ray_and_restarted_equals_this_process(
    uninterrupted: Path, tmp_path: Path
) -> None:
    kill_when(tmp_path, MIDDLES[1], LOCAL)
    rrl(tmp_path, *LOCAL)
    assert results(tmp_path) == results(uninterrupted)


def test_a_second_start_skips_what_is_done(uninterrupted: Path) -> None:
    before = results(uninterrupted)
    printed = rrl(uninterrupted, *DEBUG)
    assert "running  pretrain" not in printed
    assert "running  evaluate" not in printed
    assert printed.count("done ") == 6
    assert results(uninterrupted) == before


def test_a_changed_setting_reruns_exactly_what_it_touches(uninterrupted: Path) -> None:
    before = results(uninterrupted)
    printed = rrl(uninterrupted, *DEBUG, "arms.deacl.objective.weight=1.0")
    for stage in ("pretrain-deacl", "probe-deacl", "evaluate-deacl"):
        assert f"running  {stage}" in printed
    for stage in ("pretrain-simclr", "probe-simclr", "evaluate-simclr"):
        assert f"done     {stage}" in printed
    printed = rrl(uninterrupted, *DEBUG, "evaluate.limit=64")
    assert printed.count("done ") == 4
    assert printed.count("running  evaluate") == 2
    # Set back, everything is found again.
    printed = rrl(uninterrupted, *DEBUG)
    assert printed.count("done ") == 6
    assert results(uninterrupted) == before


def test_results_hold_no_times_paths_or_worker_counts(uninterrupted: Path) -> None:
    text = results(uninterrupted).decode()
    assert str(uninterrupted) not in text
    for word in ("second", "minute", "worker", "thread", "unit"):
        assert word not in text
    arms = json.loads(text)["arms"]
    assert set(arms) == {"simclr", "deacl"}
    for arm in arms.values():
        for number in (*arm["components"].values(), arm["worst"], *arm["curve"]):
            assert 0 <= number["low"] <= number["value"] <= number["high"] <= 1
