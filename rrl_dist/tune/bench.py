"""What a search is worth: against the best of a grid, and against random search.

For each method a grid of its settings is trained to the end; then, over several seeds,
the sweep itself, and random search without early stopping for as many steps as the
sweep has taken, rounded up to whole trials. Each one's best setting by validation
images is trained again with other seeds and attacked on test images. Regret is what is
missing to the grid's best setting, trained with the same seeds.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rrl_dist.core.display import Silent
from rrl_dist.core.seeds import t_interval
from rrl_dist.core.storage import value_hash
from rrl_dist.experiment import Experiment
from rrl_dist.tune.dimension import Value
from rrl_dist.tune.record import Record, best
from rrl_dist.tune.search import Sweep, search, train_teachers
from rrl_dist.tune.setting import run_of
from rrl_dist.tune.trial import Trial

Config = Mapping[str, Any]
Settings = Mapping[str, Value]

KINDS = ("sweep", "random")
HERE = {"kind": "debug", "workers": 1, "threads": 1, "gpu": False}
_AGAIN = 1000  # seeds of settings that are trained again begin here


@dataclass(frozen=True)
class Searched:
    """What a search has found.

    Attributes:
        settings: the best by validation images.
        steps: of all its trials together.
        trials: how many there were.
    """

    settings: Settings
    steps: int
    trials: int


@dataclass(frozen=True)
class Bench:
    """The comparison of searches over one arm.

    Attributes:
        config: of `rrl bench tune`, with `bench`: `trials` of the sweep, `points` of
            the grid, `seeds` of the searches, `again`, how many more settings are
            trained with.
        arm: of its experiment.
        folder: of this arm.
    """

    config: Config
    arm: str
    folder: Path

    def sweep(self, kind: str, seed: int, trials: int) -> Sweep:
        """A search: "grid", "sweep" or "random", of at most so many trials."""
        own: dict[str, Any] = {**self.config["sweep"], "trials": trials}
        if kind != "sweep":
            points = {"points": trials} if kind == "grid" else {}
            own |= {"stop": "none", "sampler": {"name": kind, **points}}
        kept = {k: v for k, v in self.config.items() if k != "bench"}
        name = f"{kind}-{seed}"
        config = {**kept, "sweep": own, "seed": seed, "name": f"{self.arm}-{name}"}
        return Sweep(config, self.arm, {}, self.folder / name)

    @property
    def seeds(self) -> range:
        """Of searches."""
        first = int(self.config["seed"])
        return range(first, first + int(self.config["bench"]["seeds"]))

    @property
    def others(self) -> range:
        """Seeds that settings are trained again with."""
        return range(_AGAIN, _AGAIN + int(self.config["bench"]["again"]))


def run_search(bench: Bench, kind: str, seed: int, trials: int) -> Searched:
    """A search, run where its trials are missing."""
    sweep = bench.sweep(kind, seed, trials)
    records = search(sweep, lambda: HERE, Silent())
    found = best(records, [aim.maximize for aim in sweep.aims.aims])
    if found is None:
        raise RuntimeError(f"{sweep.name}: no trial is feasible")
    steps = sum(map(steps_of, records))
    return Searched(dict(found.settings), steps, len(records))


def steps_of(record: Record) -> int:
    """Of its training, up to its last probe: trials end after one."""
    return record.looks[-1].step if record.looks else 0


def run_teachers(bench: Bench, seed: int) -> Path | None:
    """Train what the arm learns from with a seed; returns its own teacher."""
    sweep = bench.sweep("sweep", seed, 1)
    experiment = Experiment(sweep.rehearsed(), _place(bench, seed), _here, Silent())
    experiment.prepare()
    return train_teachers(sweep, experiment)


def run_again(
    bench: Bench, settings: Settings, seed: int, teacher: Path | None
) -> float:
    """Accuracy on test images under the sweep's attacks, in [0, 1]."""
    sweep = bench.sweep("sweep", seed, 1)
    setting = sweep.space.apply(sweep.base, settings, sweep.variants)
    run = run_of(setting, bench.arm, name=f"{bench.arm}-{seed}", teacher=teacher)
    run["evaluate"] = {**run["evaluate"], "split": "test"}
    folder = _place(bench, seed) / value_hash(dict(settings))[:12]
    trial = Trial(run, folder, _here)
    while not (report := trial.step()).done:
        pass
    if report.measured is None:
        raise RuntimeError(f"{bench.arm} with {dict(settings)}: {report.failed}")
    return report.measured["robust"].value


def _place(bench: Bench, seed: int) -> Path:
    return bench.folder / "again" / str(seed)


def _here() -> Config:
    return HERE


def compare_searches(
    bench: Bench, pool: Executor, say: Callable[[str], None]
) -> dict[str, Any]:
    """Run all of one arm's comparison; what is there already is not run again.

    Args:
        bench: of the arm.
        pool: of processes, which share the work.
        say: told a line for each search that has ended.

    Returns:
        as JSON: the settings found, steps, accuracies, and regrets in points with
        their 95 % t-intervals over the seeds of the search.
    """
    own = bench.config["bench"]
    grid = pool.submit(run_search, bench, "grid", bench.seeds[0], int(own["points"]))
    sweeps = [
        pool.submit(run_search, bench, "sweep", seed, int(own["trials"]))
        for seed in bench.seeds
    ]
    teachers = {seed: pool.submit(run_teachers, bench, seed) for seed in bench.others}
    whole = grid.result().steps // grid.result().trials
    say(f"{bench.arm}: grid {dict(grid.result().settings)}")
    randoms = []
    for seed, sweep in zip(bench.seeds, sweeps, strict=True):
        trials = math.ceil(sweep.result().steps / whole)
        randoms.append(pool.submit(run_search, bench, "random", seed, trials))
        say(f"{bench.arm}: sweep {seed} {dict(sweep.result().settings)}")
    found = {"sweep": sweeps, "random": randoms}
    known = {seed: teacher.result() for seed, teacher in teachers.items()}
    accuracy = _Again(bench, pool, known)
    wanted = [grid, *sweeps, *randoms]
    for one in wanted:
        accuracy.begin(one.result().settings)
    reference = accuracy.of(grid.result().settings)
    return {
        "arm": bench.arm,
        "steps_of_a_trial": whole,
        "grid": {**asdict(grid.result()), "accuracy": reference},
        **{
            kind: _told([one.result() for one in searches], accuracy, reference)
            for kind, searches in found.items()
        },
    }


class _Again:
    """Accuracies of settings that are trained again, each setting once."""

    def __init__(
        self, bench: Bench, pool: Executor, teachers: Mapping[int, Path | None]
    ) -> None:
        self._bench, self._pool, self._teachers = bench, pool, teachers
        self._begun: dict[str, list[Future[float]]] = {}

    def begin(self, settings: Settings) -> None:
        key = value_hash(dict(settings))
        if key not in self._begun:
            self._begun[key] = [
                self._pool.submit(run_again, self._bench, settings, seed, teacher)
                for seed, teacher in self._teachers.items()
            ]

    def of(self, settings: Settings) -> list[float]:
        """By seed."""
        return [one.result() for one in self._begun[value_hash(dict(settings))]]


def _told(
    searches: Sequence[Searched], accuracy: _Again, reference: Sequence[float]
) -> dict[str, Any]:
    runs = []
    for one in searches:
        again = accuracy.of(one.settings)
        pairs = zip(reference, again, strict=True)
        lost = t_interval([100 * (best - mine) for best, mine in pairs])
        told = {"accuracy": again, "regret": lost.mean, "low": lost.low}
        runs.append({**asdict(one), **told, "high": lost.high})
    regret = t_interval([float(run["regret"]) for run in runs])
    return {"seeds": runs, "regret": asdict(regret)}


def rows(found: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Of one arm's comparison: method, search, steps as a share of the grid's, and
    regret in points with its interval."""
    whole = found["grid"]["steps"]
    for kind in KINDS:
        steps = [run["steps"] / whole for run in found[kind]["seeds"]]
        lost = found[kind]["regret"]
        told = f"{lost['mean']:+.2f}"
        if lost["low"] is not None:
            told += f" [{lost['low']:+.2f}, {lost['high']:+.2f}]"
        yield found["arm"], kind, f"{100 * sum(steps) / len(steps):.0f} %", told
