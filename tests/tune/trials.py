"""Made-up trials of sweeps, for tests of tables and pictures."""

from collections.abc import Sequence
from typing import Any

from rrl_dist.tune.aims import Estimate, parse_aims
from rrl_dist.tune.dimension import Value
from rrl_dist.tune.findings import Findings
from rrl_dist.tune.record import Record, State
from rrl_dist.tune.rules import Look
from rrl_dist.tune.space import Space
from tests.tune.sweeps import SPACE

MIX: tuple[State, ...] = ("complete", "complete", "pruned", "failed", "running")


def estimate(value: float, *, interval: bool = True) -> Estimate:
    return Estimate(value, value - 0.05, value + 0.05) if interval else Estimate(value)


def record(
    number: int,
    state: State = "complete",
    robust: float = 0.5,
    clean: float = 0.9,
    *,
    aims: Sequence[str] = ("robust",),
    interval: bool = True,
    **changed: Any,
) -> Record:
    """One trial; of `SPACE`, where nothing else is said."""
    kind = "ab"[number % 2]
    settings: dict[str, Value] = {"weight": 0.1 * 1.2**number, "kind": kind}
    settings |= {"steps": 1 + number % 10}
    settings |= {"weight@b": 1e-5 * 1.2**number} if kind == "b" else {}
    complete = state == "complete"
    measured = {
        "robust": estimate(robust, interval=interval),
        "clean": estimate(clean, interval=interval),
        "cost": Estimate(60.0),
    }
    look = Look(20, robust, max(robust - 0.1, 0), min(robust + 0.1, 1), 100)
    whys = {"pruned": "behind trial 0", "failed": "the loss is not finite"}
    given: dict[str, Any] = {
        "settings": settings,
        "values": tuple(measured[a].value for a in aims) if complete else (),
        "violations": (0.0,) if complete else (),
        "measured": measured if complete else {},
        "masked": (),
        "looks": () if state == "failed" else (look,),
        "why": whys.get(state, ""),
        "seconds": 0.0 if state == "running" else 60.0,
        "started": None,
        "ended": None,
    }
    return Record(number=number, state=state, **{**given, **changed})


def findings(
    states: Sequence[State],
    *,
    aims: Sequence[str] = ("robust",),
    space: Space = SPACE,
    interval: bool = True,
) -> Findings:
    """Trials whose robust accuracy first grows and whose clean accuracy falls."""
    records = [
        record(i, s, 0.2 + 0.02 * i, 0.95 - 0.01 * i, aims=aims, interval=interval)
        for i, s in enumerate(states)
    ]
    return Findings("sweep", tuple(records), parse_aims({"aims": list(aims)}), space)
