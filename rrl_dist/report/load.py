"""A finished run, read from its folder."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrl_dist.core.aggregate import Proportion
from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import read_json

SCHEMA = 1


@dataclass(frozen=True)
class Point:
    """Accuracy at one attack size; `eps` is in [0, 1] pixels."""

    eps: float
    accuracy: Proportion


@dataclass(frozen=True)
class Arm:
    """One trained and evaluated encoder of a run.

    Attributes:
        name: the arm's key in the run.
        objective, backbone, protocol: as configured: "deacl", "resnet18", "slf".
        components: accuracy by component, such as "clean" or "pgd20-linf@0.05".
        worst: share of images that survive all components.
        curve: accuracy against attack size, by growing eps; may be empty.
        minutes: what the arm took, training and evaluation; None where not recorded.
    """

    name: str
    objective: str
    backbone: str
    protocol: str
    components: Mapping[str, Proportion]
    worst: Proportion
    curve: tuple[Point, ...]
    minutes: float | None


@dataclass(frozen=True)
class Run:
    """A finished run, as `results.json` and `cost.json` tell it.

    Attributes:
        name, data, split: the run's name, its data set, the split evaluated.
        seed, seeds: the training seed; how many seeds the numbers cover.
        norm, eps: threat model; "linf", "l2" or "l1", radius in [0, 1] pixels.
        curve_attack: attack of the curves, such as "pgd20"; None if not recorded.
        device: where it ran, in words; None where not recorded.
        arms: in the order of `arm_order`, in which the experiment ran them.
    """

    name: str
    data: str
    split: str
    seed: int
    seeds: int
    norm: str
    eps: float
    curve_attack: str | None
    device: str | None
    arms: tuple[Arm, ...]


def load_run(folder: Path) -> Run:
    """The run in `folder`.

    Raises:
        UserError: if a file is missing or damaged, or has another schema.
    """
    results = _read(folder, "results.json")
    cost = _read(folder, "cost.json")
    found = results.get("schema")
    if found != SCHEMA:
        raise UserError(
            f"{folder / 'results.json'} has schema {found!r}, this version reads "
            f"{SCHEMA}; evaluate the run again, or report with the version of the run"
        )
    with _complaints(folder):
        return _run(results, cost)


def _read(folder: Path, name: str) -> dict[str, Any]:
    file = folder / name
    if not file.is_file():
        raise UserError(f"no {name} in {folder}; run `rrl run` first, or name another")
    try:
        value = read_json(file)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f"{file} is no JSON ({error}); evaluate the run again"
        ) from None
    if not isinstance(value, dict):
        raise UserError(f"{file} holds no JSON object; evaluate the run again")
    return value


@contextmanager
def _complaints(folder: Path) -> Iterator[None]:
    """A missing or odd entry is told in one line."""
    try:
        yield
    except KeyError as error:
        reason = f"lack {error}"
    except (TypeError, ValueError, AttributeError) as error:
        reason = f"cannot be read ({error})"
    else:
        return
    raise UserError(f"the results in {folder} {reason}; evaluate the run again")


def _run(results: dict[str, Any], cost: dict[str, Any]) -> Run:
    if not results["arms"]:
        raise ValueError("no arms")
    attack, device = results.get("curve_attack"), cost.get("device")
    return Run(
        name=str(results["name"]),
        data=str(results["data"]),
        split=str(results["split"]),
        seed=int(results["seed"]),
        seeds=int(results["seeds"]),
        norm=str(results["norm"]),
        eps=float(results["eps"]),
        curve_attack=None if attack is None else str(attack),
        device=None if device is None else str(device),
        arms=tuple(
            _arm(name, results["arms"][name], cost.get("arms", {}).get(name))
            for name in results.get("arm_order", results["arms"])
        ),
    )


def _arm(name: str, arm: dict[str, Any], cost: dict[str, Any] | None) -> Arm:
    points = [Point(float(p["eps"]), _proportion(p)) for p in arm.get("curve", [])]
    return Arm(
        name=name,
        objective=str(arm["objective"]),
        backbone=str(arm["backbone"]),
        protocol=str(arm["protocol"]),
        components={k: _proportion(v) for k, v in arm["components"].items()},
        worst=_proportion(arm["worst"]),
        curve=tuple(sorted(points, key=lambda point: point.eps)),
        minutes=None if cost is None else float(cost["seconds"]) / 60,
    )


def _proportion(entry: dict[str, Any]) -> Proportion:
    value, low, high = (float(entry[key]) for key in ("value", "low", "high"))
    count = int(entry["count"])
    if not 0 <= low <= value <= high <= 1 or count < 1:
        raise ValueError(f"{value} [{low}, {high}] of {count} is no share")
    return Proportion(value, low, high, count)
