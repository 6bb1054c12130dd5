from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rrl_dist.cli.tune_show import show
from rrl_dist.tune.aims import Estimate
from rrl_dist.tune.record import Outcome
from rrl_dist.tune.rules import Look
from rrl_dist.tune.space import parse_space
from tests.tune.sweeps import study_of

CONFIG = {"objective": {"weight": 1.0, "steps": 3}, "seed": 0}
SWEEP = {
    "aims": ["robust"],
    "floors": {},
    "space": {
        "objective.weight": {"low": 0.1, "high": 100.0, "log": True},
        "objective.steps": {"low": 1, "high": 10, "int": True},
    },
}
FROZEN: Mapping[str, Any] = {
    **CONFIG,
    "sweep": SWEEP,
    "variants": {},
    "arm": None,
    "arms": None,
}


def sweep(folder: Path, name: str = "digits") -> Path:
    """Three trials that ended and one that runs, in a study's folder."""
    folder.mkdir(parents=True)
    space = parse_space(SWEEP, CONFIG, {})
    path = folder / "study.db"
    with study_of(path, name=name, space=space, frozen=FROZEN, sampler="random") as s:
        for number in range(4):
            assert s.ask() is not None
            value = 0.2 + 0.1 * number
            s.look(number, Look(10, value, value - 0.1, value + 0.1, 100))
            measured = {"robust": Estimate(value, value - 0.1, value + 0.1)}
            if number < 2:
                s.tell(number, Outcome.complete([value], [0.0], measured, [], 90.0))
            if number == 2:
                s.tell(number, Outcome.pruned("behind trial 1", 30.0))
    return folder


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        show([*arguments])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("rrl tune show: ")


def test_a_sweep_that_runs_is_told_and_its_study_stays_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = sweep(tmp_path / "digits")
    (folder / "config.yaml").write_text("sweep: {trials: 24, study: null}\n")
    before = (folder / "study.db").read_bytes()
    show(["digits", f"storage={tmp_path}"])
    told = capsys.readouterr().out
    assert told.startswith(
        "digits: 4 trials: 2 complete, 1 running, 1 pruned; 3.5 device-minutes without "
        "the 1 running; 24 trials at most\ntrial 3 running (weight="
    )
    assert "): step 10, robust 50.0 [40.0, 60.0] %\n" in told
    assert "trial 2 pruned: behind trial 1\n" in told
    assert "Best is trial 1 (weight=" in told
    assert "[20.0, 40.0]" in told
    assert (folder / "study.db").read_bytes() == before
    answer = {path.name for path in (folder / "answer").iterdir()}
    assert {"sweep.md", "trials.json", "history.png", "strength.png"} <= answer
    there = {path.name for path in folder.iterdir()}
    shown = {name for name in there if not name.startswith(".")}  # but a lock
    assert shown == {"study.db", "config.yaml", "answer"}


def test_a_study_elsewhere_is_told_and_no_folder_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = sweep(tmp_path / "elsewhere") / "study.db"
    show(["digits", f"storage={tmp_path}/runs", f"sweep.study={database}"])
    assert capsys.readouterr().out.startswith("digits: 4 trials")
    assert not (tmp_path / "runs").exists()


def test_the_address_of_the_configuration_is_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = sweep(tmp_path / "elsewhere") / "study.db"
    folder = tmp_path / "runs" / "digits"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"sweep: {{study: 'sqlite:///{database}'}}\n")
    show(["digits", f"storage={tmp_path}/runs"])
    assert capsys.readouterr().out.startswith("digits: 4 trials")
    assert (folder / "answer" / "sweep.md").is_file()


def test_mistakes_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep(tmp_path / "digits")
    (tmp_path / "demo").mkdir()
    here = f"storage={tmp_path}"
    assert refusal(capsys, "digit", here) == (
        f"there is no sweep digit in {tmp_path}; the nearest is digits"
    )
    assert refusal(capsys, "digit", f"storage={tmp_path}/no") == (
        f"there is no sweep digit in {tmp_path}/no; check storage="
    )
    assert refusal(capsys, here) == "name a sweep: rrl tune show digits"
    assert f"{tmp_path}/demo has no study.db" in refusal(capsys, "demo", here)
    assert refusal(capsys, "digits", "storge=x") == (
        "there is no setting storge; the nearest is storage"
    )
    assert "--x is no option" in refusal(capsys, "digits", "--x")
    assert "give it once" in refusal(capsys, "digits", "other")
    assert "storage= has no value" in refusal(capsys, "digits", "storage=")
    place = f"sweep.study={tmp_path}/no.db"
    assert "has no sweep digits" in refusal(capsys, "digits", here, place)
    assert not (tmp_path / "no.db").exists()


def test_help_tells_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    show(["--help"])
    told = capsys.readouterr().out
    assert told.startswith("rrl tune show NAME")
    assert "storage=" in told
    assert "sweep.study=" in told
