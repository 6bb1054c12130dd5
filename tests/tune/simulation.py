"""What ending trials early saves and what it loses, on recorded learning curves.

    python -m tests.tune.simulation docs/sweeps-stopping.md

The curves are of real trainings (`curves.json` says how they were made). A simulated
sweep is a random choice of them, in random order, some at once; what its probes count
is drawn anew each time. The rules are the real ones.
"""

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from rrl_dist.core.aggregate import wilson
from rrl_dist.core.randomness import stream
from rrl_dist.tune.asha import Asha
from rrl_dist.tune.intervals import Intervals
from rrl_dist.tune.rules import Both, Look, Never, Rule
from tests.evaluate.simulation import write_between

CURVES = Path(__file__).with_name("curves.json")
START, END = "<!-- simulation -->", "<!-- /simulation -->"
TRIALS, AT_ONCE = 24, 4  # of each sweep, where there are as many curves
ALPHA = 0.05
IMAGES = (145, 1000)  # of digits' validation split, and of a larger one
Noise = Literal["own images", "same images"]


@dataclass(frozen=True)
class Curves:
    """Learning curves at common steps.

    Attributes:
        names: of the settings.
        steps: of the probes; the last is the end of a trial.
        accuracy: [settings, probes] robust accuracy, taken as the truth.
        images: that it was counted on.
    """

    names: tuple[str, ...]
    steps: tuple[int, ...]
    accuracy: NDArray[np.float64]
    images: int

    def only(self, method: str) -> "Curves":
        """Those of one method."""
        kept = [k for k, name in enumerate(self.names) if name.startswith(method)]
        names = tuple(self.names[k] for k in kept)
        return Curves(names, self.steps, self.accuracy[kept], self.images)


def recorded() -> Curves:
    """Those of `curves.json`."""
    found = json.loads(CURVES.read_text())
    names = tuple(f"{each['method']} {each['weight']:g}" for each in found["curves"])
    right = np.array([each["right"] for each in found["curves"]])
    accuracy = right / found["images"]
    return Curves(names, tuple(found["steps"]), accuracy, found["images"])


def counted(
    accuracy: NDArray[np.float64],
    images: int,
    noise: Noise,
    random: np.random.Generator,
) -> NDArray[np.int64]:
    """How many images each probe finds right: binomial of its accuracy.

    Args:
        accuracy: of any shape.
        images: of every probe.
        noise: "own images" draws for each probe anew. "same images" draws once how hard
            each image is, and a probe gets those right that are easy enough for its
            accuracy: as alike as the probes of different models can be.
    """
    if noise == "own images":
        return random.binomial(images, accuracy)
    return np.searchsorted(np.sort(random.random(images)), accuracy)


def look(step: int, right: int, count: int = IMAGES[0]) -> Look:
    """As a trial reports it."""
    found = wilson(right, count)
    return Look(step, found.value, found.low, found.high, count)


def play(
    rule: Rule,
    steps: Sequence[int],
    right: NDArray[np.int64],
    images: int,
    *,
    at_once: int,
    random: np.random.Generator,
) -> list[int]:
    """One sweep; its trials begin in the order they have, and of those that run any may
    be the next to be probed.

    Args:
        rule: new.
        steps: of the probes.
        right: [trials, probes] of `images`.

    Returns:
        how many probes each trial came to.
    """
    made = [0] * len(right)
    waiting = list(range(len(right)))
    running = [waiting.pop(0) for _ in range(min(at_once, len(right)))]
    draws = iter(random.random(right.size).tolist())
    while running:
        trial = running[int(next(draws) * len(running))]
        step, found = steps[made[trial]], int(right[trial, made[trial]])
        made[trial] += 1
        seen = Look(step, found / images, 0.0, 1.0, images)
        if made[trial] == len(steps):
            rule.ended(trial, seen)
        elif rule.look(trial, seen) is None:
            continue
        running.remove(trial)
        running += [waiting.pop(0)] if waiting else []
    return made


@dataclass(frozen=True)
class Outcome:
    """What a rule did to one sweep.

    Attributes:
        saved: share of the training steps of all trials that were not made.
        lost: whether all trials with the best final accuracy were ended.
        left: points of final accuracy between the best trial and the best of those that
            were not ended.
        regret: points between the best trial and the one that measures best at its end.
    """

    saved: float
    lost: float
    left: float
    regret: float


def outcome(
    curves: Curves, images: int, noise: Noise, make: Callable[[], Rule], number: int
) -> Outcome:
    """Of sweep `number`, which is the same for all rules."""
    random = stream(number, "sweep", images, noise)
    chosen = random.permutation(len(curves.names))[:TRIALS]
    accuracy = curves.accuracy[chosen]
    right = counted(accuracy, images, noise, random)
    made = np.array(
        play(make(), curves.steps, right, images, at_once=AT_ONCE, random=random)
    )
    steps = np.array((0, *curves.steps))
    final, finished = accuracy[:, -1], made == len(curves.steps)
    best_left = final[finished].max()
    picked = np.where(finished, right[:, -1], -1).argmax()
    return Outcome(
        saved=1 - float(steps[made].mean()) / curves.steps[-1],
        lost=float(best_left < final.max()),
        left=100 * float(final.max() - best_left),
        regret=100 * float(final.max() - final[picked]),
    )


def rules(curves: Curves) -> dict[str, Callable[[], Rule]]:
    """Those of the page."""
    first, later = curves.steps[0], 4 * curves.steps[0]

    def intervals(grace: int) -> Callable[[], Rule]:
        probes = sum(step >= grace for step in curves.steps)
        looks = min(TRIALS, len(curves.names)) * probes
        return lambda: Intervals(alpha=ALPHA, looks=looks, grace=grace)

    def asha(eta: int, grace: int) -> Callable[[], Rule]:
        return lambda: Asha(grace=grace, eta=eta)

    return {
        "none": Never,
        "intervals": intervals(first),
        f"intervals, grace {later}": intervals(later),
        "ASHA, eta 2": asha(2, first),
        "ASHA, eta 3": asha(3, first),
        "ASHA, eta 4": asha(4, first),
        f"ASHA, eta 2, grace {later}": asha(2, later),
        f"ASHA, eta 4, grace {later}": asha(4, later),
        f"both, eta 2, grace {later}": lambda: Both(
            rules=[asha(2, later)(), intervals(later)()]
        ),
    }


def mean(values: Sequence[float], digits: int) -> str:
    """Mean and, after it, its standard error."""
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return f"{np.mean(values):.{digits}f} ± {error:.{digits}f}"


def table(curves: Curves, images: int, noise: Noise, times: int) -> str:
    """As Markdown."""
    lines = [
        "| rule | steps saved, % | best one ended, % | lost by the rule, points "
        "| regret, points |",
        "| :-- | --: | --: | --: | --: |",
    ]
    for name, make in rules(curves).items():
        found = [outcome(curves, images, noise, make, k) for k in range(times)]
        cells = (
            name,
            mean([100 * each.saved for each in found], 1),
            mean([100 * each.lost for each in found], 1),
            mean([each.left for each in found], 2),
            mean([each.regret for each in found], 2),
        )
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def page(curves: Curves, times: int) -> str:
    """What goes between the marks."""
    best = int(curves.accuracy[:, -1].argmax())
    parts = [
        "`python -m tests.tune.simulation docs/sweeps-stopping.md`: "
        f"{len(curves.names)} curves of {len(curves.steps)} probes; final accuracies "
        f"{100 * curves.accuracy[:, -1].min():.1f} % to "
        f"{100 * curves.accuracy[best, -1]:.1f} % ({curves.names[best]}). {times:,} "
        f"sweeps a row, the same for all rules; {AT_ONCE} trials at once; "
        f"alpha {ALPHA}; grace {curves.steps[0]} of {curves.steps[-1]} steps where no "
        "other is told. "
        "Mean ± standard error."
    ]
    told = {
        "own images": "each probe draws its images anew",
        "same images": "all probes share their images, as alike as can be",
    }
    settings: tuple[tuple[str, int, Noise], ...] = (
        ("", IMAGES[0], "own images"),
        ("", IMAGES[0], "same images"),
        ("", IMAGES[1], "same images"),
        ("tarrl", IMAGES[0], "same images"),
    )
    for method, images, noise in settings:
        chosen = curves.only(method)
        trials = min(TRIALS, len(chosen.names))
        title = (
            f"{trials} trials of {method or 'all'}, {images:,} images; {told[noise]}:"
        )
        print(title, flush=True)
        parts += [title, table(chosen, images, noise, times)]
    return "\n\n".join(parts)


if __name__ == "__main__":
    where, *rest = sys.argv[1:]
    write_between(
        Path(where), page(recorded(), int(rest[0]) if rest else 1000), START, END
    )
