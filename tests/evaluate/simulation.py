"""The scheduler with up to 512 workers, on a clock that is only counted.

    python -m tests.evaluate.simulation docs/scheduler.png docs/evaluator.md

`Schedule` and `drive` are the real ones, the crew is that of `tests.evaluate.virtual`.
"""

import itertools
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from rrl_dist.evaluate.costs import Costs
from rrl_dist.evaluate.crew import drive
from rrl_dist.evaluate.grid import ATOM
from rrl_dist.evaluate.schedule import Cut, Schedule
from rrl_dist.evaluate.status import status_of
from rrl_dist.report.figures import drawing
from tests.evaluate.virtual import (
    CALL,
    PASS,
    Setting,
    VirtualCrew,
    ordered,
    plan,
    truth,
)

CUT = Cut(seconds=30.0, least=ATOM, call=CALL)


@dataclass(frozen=True)
class Outcome:
    """What came of a simulated evaluation.

    Attributes:
        setting: what was simulated.
        utilization: useful seconds over those of all workers until the end.
        twice: of the seconds that workers were busy, those for nothing: second copies,
            and units whose worker was lost.
        makespan: seconds until the end.
        units: how many counted.
        median, long: seconds of a unit, and what 95 of 100 units stay below.
        driver: CPU seconds of the driver for each unit.
        lost: workers.
    """

    setting: Setting
    utilization: float
    twice: float
    makespan: float
    units: float
    median: float
    long: float
    driver: float
    lost: float


Make = Callable[..., Schedule]


def simulate(
    setting: Setting, *, cut: Cut = CUT, make: Make = Schedule
) -> tuple[Outcome, Schedule]:
    """Do a whole evaluation.

    Args:
        setting: what happens.
        cut: how large units are.
        make: makes the schedule.
    """
    suite = plan()
    chains = ordered(suite)
    schedule = make(chains, setting.samples, workers=setting.workers, cut=cut)
    costs = Costs(suite, chains, classes=10)
    costs.pass_seconds = PASS
    crew = VirtualCrew(setting, truth(setting.samples, setting.seed))
    begin = time.process_time()
    counts = drive(
        schedule,
        crew,
        heard=lambda work, done: _watch(schedule, costs),
        patience=3 * setting.workers,
    )
    driver = time.process_time() - begin - crew.own
    crew.close()
    outcome = Outcome(
        setting,
        utilization=crew.useful / (setting.workers * crew.now()),
        twice=1 - crew.counted / crew.spent,
        makespan=crew.now(),
        units=len(crew.lengths),
        median=float(np.median(crew.lengths)),
        long=float(np.quantile(crew.lengths, 0.95)),
        driver=driver / len(crew.lengths),
        lost=counts["lost"],
    )
    return outcome, schedule


def _watch(schedule: Schedule, costs: Costs) -> None:
    """As `Evaluation` has whoever watches told after each unit."""
    assert status_of(schedule, costs).left is not None


SAMPLES, WORKERS, FAILURES = (10_000, 50_000), (8, 32, 128, 512), (0.0, 1.0, 5.0)
COLOURS = ("#0072B2", "#D55E00", "#009E73")  # Okabe and Ito 2008
START, END = "<!-- simulation -->", "<!-- /simulation -->"
Found = dict[tuple[int, int, float], Outcome]


def average(outcomes: Sequence[Outcome]) -> Outcome:
    """Means of some seeds."""
    names = [f.name for f in fields(Outcome) if f.name != "setting"]
    means = {n: float(np.mean([getattr(o, n) for o in outcomes])) for n in names}
    return Outcome(outcomes[0].setting, **means)


def measure(seeds: int) -> Found:
    """All settings of table and plot."""
    found: Found = {}
    for key in itertools.product(SAMPLES, WORKERS, FAILURES):
        setting = Setting(*key)
        runs = [simulate(replace(setting, seed=s))[0] for s in range(seeds)]
        found[key] = average(runs)
        print(found[key], flush=True)
    return found


def draw(found: Found, path: Path) -> None:
    """Utilization and what was for nothing, against the number of workers."""
    with drawing(path, width=9.0, height=4.2) as figure:
        figure.set_layout_engine("constrained", w_pad=0.12, h_pad=0.08)
        left, right = figure.subplots(1, 2)
        for axes, what in ((left, "utilization"), (right, "twice")):
            for samples, failures in itertools.product(SAMPLES, FAILURES):
                place = FAILURES.index(failures)
                few = samples == SAMPLES[0]
                axes.plot(
                    WORKERS,
                    [100 * getattr(found[samples, w, failures], what) for w in WORKERS],
                    color=COLOURS[place],
                    marker="os^"[place],
                    markersize=5.5,
                    linestyle="--" if few else "-",
                    linewidth=1.8,
                    label=f"{samples:,} images, failures a worker-hour: {failures:g}",
                )
            _frame(axes, 100 if what == "utilization" else 50)
        left.set_title("time of workers that was of use (%)", loc="left", fontsize=11)
        right.set_title("busy time that was in vain (%)", loc="left", fontsize=11)
        handles, names = left.get_legend_handles_labels()
        figure.legend(
            handles, names, loc="outside lower center", ncols=2, frameon=False
        )


def _frame(axes: Any, most: int) -> None:
    axes.set_xscale("log", base=2)
    axes.set_xticks(WORKERS, [str(number) for number in WORKERS])
    axes.set_xlabel("workers")
    axes.set_ylim(0, most)
    axes.grid(color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def table(found: Found, seeds: int) -> str:
    """As Markdown."""
    lines = [
        "| images | workers | failures | of use | in vain | until the end | units "
        "| a unit: median | 95 % | driver, a unit |",
        "| --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]
    for (samples, workers, failures), o in found.items():
        cells = (
            f"{samples:,}",
            str(workers),
            f"{failures:g}",
            f"{100 * o.utilization:.0f} %",
            f"{100 * o.twice:.0f} %",
            f"{o.makespan:,.0f} s",
            f"{o.units:,.0f}",
            f"{o.median:.1f} s",
            f"{o.long:.0f} s",
            f"{1000 * o.driver:.2f} ms",
        )
        lines.append(f"| {' | '.join(cells)} |")
    told = (
        "`python -m tests.evaluate.simulation docs/scheduler.png docs/evaluator.md`, "
        f"means of {seeds} seeds; failures are of each worker in an hour."
    )
    return "\n".join([told, "", *lines])


def write_between(page: Path, text: str, start: str, end: str) -> None:
    """Replace what is between two marks of a page."""
    before, _, rest = page.read_text().partition(start)
    _, mark, after = rest.partition(end)
    assert mark, f"{page} lacks {start} and {end}"
    page.write_text(f"{before}{start}\n{text}\n{end}{after}")


if __name__ == "__main__":
    picture, page, *rest = sys.argv[1:]
    count = int(rest[0]) if rest else 5
    outcomes = measure(count)
    draw(outcomes, Path(picture))
    write_between(Path(page), table(outcomes, count), START, END)
