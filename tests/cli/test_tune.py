"""`rrl tune` as a person runs it: killed, gone on with, answered, shown."""

import json
import signal
import time
from pathlib import Path

import pytest

from rrl_dist.core.storage import read_json
from rrl_dist.tune.record import Record
from rrl_dist.tune.study import read_study
from tests.cli.harness import rrl, start
from tests.mistakes.commands import refused
from tests.tune.small import SMALL, came_of

ANSWERED = (
    "sweep.answer.seeds=1",
    "suite@sweep.answer.suite=pgd20",
    "suite.attacks.apgd_ce.steps=2",
)
COMMAND = ("tune", *(s for s in SMALL if not s.startswith("sweep.answer")), "name=s")


def records_of(folder: Path) -> list[Record]:
    return read_study(folder / "runs/s/study.db", "s")[1]


def ended(folder: Path) -> int:
    try:
        return sum(r.state != "running" for r in records_of(folder))
    except Exception:  # it is not there yet, or just being made
        return -1


def wait_for(folder: Path, count: int) -> None:
    until = time.monotonic() + 300
    while ended(folder) < count:
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture(scope="module")
def killed_twice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("killed")
    for count in (0, 2):  # as the first trial runs, and the third
        process = start(folder, *COMMAND, *ANSWERED)
        wait_for(folder, count)
        time.sleep(0.7)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert ended(folder) < 4
    # Its name is enough: all else is as it was begun.
    return folder, rrl(folder, "tune", "name=s")


@pytest.mark.slow
def test_a_sweep_that_was_killed_twice_ends_as_one_that_was_not(
    killed_twice: tuple[Path, str], tmp_path: Path
) -> None:
    rrl(tmp_path, *COMMAND, "sweep.answer.seeds=0", *ANSWERED[2:])
    assert came_of(records_of(killed_twice[0])) == came_of(records_of(tmp_path))


@pytest.mark.slow
def test_the_answer_is_trained_again_and_attacked_on_test_images(
    killed_twice: tuple[Path, str],
) -> None:
    folder, printed = killed_twice
    (run,) = (folder / "runs/s/answer/runs").iterdir()
    results = read_json(run / "results.json")
    assert (results["split"], results["seed"]) == ("test", 1)
    (arm,) = results["arms"].values()
    assert arm["worst"]["count"] == 359
    assert "best.yaml" in printed
    assert (folder / "runs/s/answer/report.md").is_file()
    assert (folder / "runs/s/answer/sweep.md").is_file()


@pytest.mark.slow
def test_the_best_setting_is_an_experiment(killed_twice: tuple[Path, str]) -> None:
    folder, _ = killed_twice
    own = ("--config-dir", str(folder / "runs/s/answer"))
    printed = rrl(folder, "run", "experiment=best", *own, "--cfg", "job", "--resolve")
    best = max((r for r in records_of(folder) if r.feasible), key=lambda r: r.values[0])
    weight = best.settings["objective.weight"]
    assert f"weight: {weight}" in printed
    fewer = ("experiment=best", "name=again", "evaluate.limit=20")
    run = rrl(folder, "run", *fewer, *own)
    assert "trial-" in run
    told = json.loads((folder / "runs/again/results.json").read_text())
    assert list(told["arms"]) == [f"trial-{best.number:04d}"]
    assert told["arms"][f"trial-{best.number:04d}"]["objective"] == "Spectral(SimCLR)"


@pytest.mark.slow
def test_show_tells_of_a_sweep(killed_twice: tuple[Path, str]) -> None:
    folder, _ = killed_twice
    printed = rrl(folder, "tune", "show", "s")
    assert "4 trials" in printed or "complete" in printed
    assert "Best is" in printed


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("sweep=unknown",), "there is no sweep=unknown"),
        (("sweep.trials=0",), "sweep.trials=0; set at least 1"),
        (("sweep.at_once=0",), "sweep.at_once=0; set at least 1"),
        (("sweep.aims=[robst]",), "the nearest that is known is robust"),
        (("sweep.aims=[bound]",), "bound"),
        (("sweep.stop=later",), "sweep.stop=later"),
        (("sweep.floors={clean:2}",), "sweep.floors.clean=2, and no accuracy"),
        (("sweep.study=postgresql://u:secret@127.0.0.1:1/x",), "127.0.0.1"),
        (("sweep.study=mysql://x/y",), "sweep.study=mysql://x/y"),
        (("arm=nobody",), "there is no arm nobody; choose arm="),
        (("sampler=cmaes", "sweep.aims=[robust,clean]"), "one aim"),
        (("evaluate.split=tset",), "evaluate.split=tset; choose test or val"),
    ],
)
def test_mistakes_are_one_line(
    given: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = (f"storage={tmp_path}", f"betons={tmp_path}")
    line = refused([*COMMAND, *given, *places], monkeypatch, capsys)
    assert said in line
    assert "secret" not in line
    assert not (tmp_path / "s/trials").exists()
