"""Small sweeps over a formula, for tests of studies."""

import math
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from rrl_dist.tune.aims import Estimate
from rrl_dist.tune.dimension import Choices, Dimension, Floats, Value, Whole
from rrl_dist.tune.record import Asked, Outcome, Record
from rrl_dist.tune.rules import Look
from rrl_dist.tune.space import Space
from rrl_dist.tune.study import Study

SAMPLERS: dict[str, dict[str, Any]] = {
    "tpe": {"name": "tpe", "startup": 2, "candidates": 8, "multivariate": True},
    "nsga2": {
        "name": "nsga2",
        "population": 3,
        "crossover_prob": 0.9,
        "swapping_prob": 0.5,
        "mutation_prob": None,
    },
    "cmaes": {"name": "cmaes", "startup": 1, "population": 4},
    "random": {"name": "random"},
    "grid": {"name": "grid", "points": 3},
}
WEIGHT = Dimension("weight", "weight", Floats(low=0.1, high=100.0, log=True, step=None))
STEPS = Dimension("steps", "steps", Whole(low=1, high=10, log=False, step=1))
KIND = Dimension("kind", "kind", Choices(("a", "b")))
ONLY_B = Dimension(
    "weight@b",
    "weight",
    Floats(low=1e-5, high=1e-2, log=True, step=None),
    {"kind": ("b",)},
)
STARTS: tuple[Mapping[str, Value], ...] = (
    {"weight": 1, "steps": 5, "kind": "b", "weight@b": 1e-3},
    {"weight": 10.0},
)
SPACE = Space((WEIGHT, STEPS, KIND, ONLY_B), STARTS)
SMOOTH = Space((WEIGHT, STEPS), ())


def opened(address: str | Path, name: str = "sweep", **changed: Any) -> Study:
    """A study with one aim, TPE and eight trials, where nothing else is said."""
    sampler = changed.pop("sampler", "tpe")
    given: dict[str, Any] = {
        "maximize": (True,),
        "space": SPACE,
        "sampler": SAMPLERS[sampler] if isinstance(sampler, str) else sampler,
        "seed": 3,
        "trials": 8,
        "frozen": {"objective": {"weight": 1.0}, "seed": 3},
        **changed,
    }
    return Study(address, name, **given)


@contextmanager
def study_of(address: str | Path, **changed: Any) -> Iterator[Study]:
    study = opened(address, **changed)
    try:
        yield study
    finally:
        study.close()


def look_of(asked: Asked, step: int) -> Look:
    value = quality(asked) * step / 20
    return Look(step, value, max(value - 0.1, 0), min(value + 0.1, 1), 100)


def quality(asked: Asked) -> float:
    """In (0, 1], best at weight 10, which is more than any `weight@b` gives."""
    weight = asked.settings["weight"]
    assert isinstance(weight, float)
    return math.exp(-abs(math.log10(weight) - 1))


def outcome_of(asked: Asked, aims: int = 1) -> Outcome:
    """Some are pruned, fail, or are not feasible; by the number of the trial."""
    kind = asked.number % 5
    if kind == 2:
        return Outcome.pruned("behind", 1.0)
    if kind == 3:
        return Outcome.failed("the loss is not finite", 1.0)
    value = quality(asked)
    measured = {"robust": Estimate(value, value - 0.1, value + 0.1)}
    values = (value, -value * asked.number)[:aims]
    violation = 0.1 if kind == 4 else -0.1
    return Outcome.complete(values, (violation, 0.0), measured, (), 2.0)


def drive(study: Study) -> Iterator[Asked]:
    """Run all that is missing one after another; each trial as it is handed out."""
    waiting = study.left()
    while (asked := waiting.pop(0) if waiting else study.ask()) is not None:
        yield asked
        for step in (10, 20):
            study.look(asked.number, look_of(asked, step))
        study.tell(asked.number, outcome_of(asked, len(study.maximize)))


def states_of(path: Path, folder: Path, work: Callable[[], None]) -> list[Path]:
    """Copies of a file of SQLite as it stood after each commit of what `work` does:
    what is there when a process is killed, at any point."""
    copies: list[Path] = []

    def copy(*_: object) -> None:  # before each commit, as the one before it left it
        content = path.read_bytes() if path.exists() else b""
        if content and (not copies or copies[-1].read_bytes() != content):
            copies.append(folder / f"{len(copies)}.db")
            shutil.copyfile(path, copies[-1])

    event.listen(Engine, "commit", copy)
    try:
        work()
    finally:
        event.remove(Engine, "commit", copy)
    copy()
    return copies


# A driver in a process of its own. It tells each trial when it begins.
DRIVER = """
import sys
from tests.tune.sweeps import drive, study_of
with study_of(sys.argv[1], name=sys.argv[2]) as study:
    for asked in drive(study):
        print(asked.number, flush=True)
"""


def driver(address: str | Path, name: str = "sweep") -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", DRIVER, str(address), name]
    root = Path(__file__).parents[2]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root)


def killed(address: str | Path, *, after: int, name: str = "sweep") -> None:
    """A driver that is killed when it begins the trial of that number, or a moment
    later."""
    with driver(address, name) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= after:
                process.kill()
    assert process.returncode == -signal.SIGKILL


def same(records: Iterable[Record]) -> list[tuple[object, ...]]:
    """What is the same in a sweep that was killed and in one that was not."""
    kept = ("number", "settings", "state", "values", "violations", "looks", "why")
    return [tuple(getattr(record, name) for name in kept) for record in records]
