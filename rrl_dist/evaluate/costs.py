"""What an evaluation will take, in passes and in seconds."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rrl_dist.attacks.cascade import CLEAN, Cascade
from rrl_dist.attacks.passes import Passes
from rrl_dist.attacks.result import Attack
from rrl_dist.core.modes import evaluating
from rrl_dist.evaluate.grid import Chain, Link
from rrl_dist.evaluate.order import OTHERS_BREAK, work_of
from rrl_dist.evaluate.plan import Suite
from rrl_dist.evaluate.schedule import Schedule

# After the first attack of a chain, the next ones break this share of what is left.
_LATER_BREAK = 0.1


@dataclass(frozen=True)
class Forecast:
    """What is left to be done.

    Attributes:
        passes: by link, of all samples that it is expected to be asked about, and of
            what fills up their calls of the model; None where nothing is known of it.
        seconds: of one worker, by link; None as long as nothing is known.
    """

    passes: Mapping[Link, float | None]
    seconds: Mapping[Link, float | None]

    @property
    def total(self) -> float | None:
        """Seconds of one worker; None while those of a link are not known."""
        known = list(self.seconds.values())
        if any(value is None for value in known):
            return None
        return sum(value for value in known if value is not None)

    def told(self, workers: int) -> str:
        """In words, with so many workers."""
        passes = sum(count or 0.0 for count in self.passes.values())
        count = f"{passes / 1e6:.1f} million" if passes > 1e6 else f"{passes:,.0f}"
        words = f"about {count} passes of one image to make, backward ones included"
        if self.total is None:
            return f"{words}, and those of attacks that do not tell theirs"
        each = "worker" if workers == 1 else "workers"
        time = f"{duration(self.total / workers)} on {workers} {each}"
        return f"{words}: {duration(self.total, of='device-')}, {time}"


def duration(seconds: float, *, of: str = "") -> str:
    """Such as "12.3 minutes", below one "4.2 seconds"; with `of` before the unit."""
    if 0 < seconds < 0.05:
        return f"<0.1 {of}seconds"
    if seconds < 60:
        return f"{seconds:.1f} {of}seconds"
    return f"{seconds / 60:.1f} {of}minutes"


class Costs:
    """Predicts what an evaluation takes, better the more of it is done.

    Args:
        suite: what is done.
        chains: its components.
        classes: of the data.

    Attributes:
        pass_seconds: of a forward pass of one image; None where it is not known.
    """

    def __init__(self, suite: Suite, chains: Sequence[Chain], *, classes: int) -> None:
        self.chains = chains
        self.pass_seconds: float | None = None
        self._works = {
            link: _work(suite.attacks[link.component], link, classes)
            for chain in chains
            for link in chain
        }

    def left(self, schedule: Schedule) -> Forecast:
        """Of a schedule, with the survivors that are known and those to be expected."""
        expected = {
            link: count
            for chain in self.chains
            for link, count in zip(chain, _expected(chain, schedule), strict=True)
        }
        each = self._pass_time(schedule)
        call = schedule.cut.call
        passes = {
            link: _times(self._works[link], _filled(count, call))
            for link, count in expected.items()
        }
        seconds = {
            link: _times(schedule.pace[link].per_sample, count)
            if schedule.pace[link].samples
            else _times(each, passes[link])
            for link, count in expected.items()
        }
        return Forecast(passes, seconds)

    def _pass_time(self, schedule: Schedule) -> float | None:
        """Seconds of a pass, from the units that have ended where there are some."""
        call = schedule.cut.call
        paces = [
            (pace, work * pace.units * _filled(pace.samples / pace.units, call))
            for link, pace in schedule.pace.items()
            if pace.samples and (work := self._works[link]) is not None and work > 1
        ]
        if not paces:
            return self.pass_seconds
        # Some samples were broken before all passes were made: the dearest is nearest.
        return max(pace.seconds / passes for pace, passes in paces)


def _filled(samples: float, call: int) -> int:
    """Images of the whole calls of the model that so many samples take."""
    return math.ceil(samples / call) * call


def _times(a: float | None, b: float | None) -> float | None:
    if b == 0 or a == 0:
        return 0.0
    return None if a is None or b is None else a * b


def _work(attack: Attack | None, link: Link, classes: int) -> float | None:
    if attack is None or link.attack == CLEAN:
        return 1.0
    if isinstance(attack, Cascade):
        attack = next(a for a in attack.attacks if a.name == link.attack)
    return work_of(attack, classes)


def _expected(chain: Chain, schedule: Schedule) -> list[float]:
    """Samples that each link is still to be asked about."""
    counts, coming = [], 0.0
    for place, link in enumerate(chain):
        count = schedule.waiting(link) + coming
        counts.append(count)
        coming = count * (1 - (OTHERS_BREAK if place == 1 else _LATER_BREAK))
    return counts


def measured_pass(model: nn.Module, x: Tensor, *, size: int, cores: int) -> float:
    """Seconds of a forward pass of one image, the least of some tries.

    Args:
        model: on the device of x.
        x: [N, ...] images.
        size: images of a call.
        cores: threads of the call.
    """
    batch, before = x[torch.arange(size) % len(x)], torch.get_num_threads()
    times = []
    torch.set_num_threads(cores)
    try:
        with torch.no_grad(), evaluating(model):
            for _ in range(4):
                begin = time.perf_counter()
                model(batch)
                if x.is_cuda:
                    torch.cuda.synchronize()
                times.append(time.perf_counter() - begin)
    finally:
        torch.set_num_threads(before)
    return min(times) / size


def told(
    schedule: Schedule, passes: Mapping[Link, Passes], *, wall: float
) -> dict[str, Any]:
    """What an evaluation has taken.

    Args:
        schedule: at its end.
        passes: of the links' units that were done this time.
        wall: seconds that this time took.

    Returns:
        by link, of all workers together, samples, units and seconds, earlier attempts
        included, and passes of this one.
    """
    links = {}
    for link, pace in schedule.pace.items():
        own = passes.get(link, Passes())
        links[link.name] = {
            "samples": pace.samples,
            "units": pace.units,
            "seconds": round(pace.seconds, 3),
            "forward": own.forward,
            "backward": own.backward,
        }
    total = sum(pace.seconds for pace in schedule.pace.values())
    return {
        "links": links,
        "device_minutes": round(total / 60, 3),
        "wall_seconds": round(wall, 3),
        "workers": schedule.workers,
    }
