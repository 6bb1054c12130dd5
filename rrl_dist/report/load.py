"""A finished run, read from its folder."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from rrl_dist.core.aggregate import Mean, Proportion
from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import read_json
from rrl_dist.report.settings import read_settings

SCHEMA = 1
T = TypeVar("T")


@dataclass(frozen=True)
class Point:
    """Accuracy at one attack size; `eps` is in [0, 1] pixels."""

    eps: float
    accuracy: Proportion


@dataclass(frozen=True)
class Level:
    """The bound on the adversarial loss at one attack size, all losses in nats.

    Attributes:
        eps: in [0, 1] pixels.
        clean_loss, loss: cross-entropy on clean images, and the worst one measured.
        head_norm: spectral norm of the linear head.
        displacement: R(f), how far attacks moved features.
        relative: R(f) over the features' spread; None where they have none.
        bound: clean_loss + sqrt(2) head_norm displacement.
    """

    eps: float
    clean_loss: Mean
    head_norm: float
    displacement: Mean
    relative: Mean | None
    bound: Mean
    loss: Mean


@dataclass(frozen=True)
class Distance:
    """Mean distance of images to the nearest wrong one that a search found.

    Attributes:
        norm: "l2".
        radius: the largest tried; images that were not broken count with it.
        mean: over all images; those wrong from the start count 0.
        censored: how many were not broken.
    """

    norm: str
    radius: float
    mean: Mean
    censored: int


@dataclass(frozen=True)
class Representation:
    """Measures of an encoder on clean images.

    Attributes:
        feature_std: of unit features, mean over columns.
        effective_rank: of the centred features.
        sigma_squared_sum: over layers, of each one's largest singular value; None where
            a layer has no exact operator.
    """

    feature_std: float
    effective_rank: float
    sigma_squared_sum: float | None


@dataclass(frozen=True)
class Arm:
    """One trained encoder of a run, evaluated on one task.

    Attributes:
        name: its key in the run: the arm, or arm and task.
        objective, backbone, protocol: as configured: "deacl", "resnet18", "slf".
        components: accuracy by component, such as "clean" or "pgd20-linf@0.05".
        worst: share of images that survive all components.
        curve: accuracy against attack size, by growing eps; may be empty.
        minutes: what the arm took, training and evaluation; None where not recorded.
        arm, task: the two parts of the name; no task where the run has none.
        levels: the bound by growing eps; may be empty.
        distance, representation: None where not measured.
    """

    name: str
    objective: str
    backbone: str
    protocol: str
    components: Mapping[str, Proportion]
    worst: Proportion
    curve: tuple[Point, ...]
    minutes: float | None
    arm: str
    task: str | None = None
    levels: tuple[Level, ...] = ()
    distance: Distance | None = None
    representation: Representation | None = None


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
        tasks: the classes of each task, as they were given; empty without tasks.
        settings: what sets it apart from other runs, seed and folders aside, by dotted
            name; None where not recorded.
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
    tasks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    settings: Mapping[str, Any] | None = None


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
        return replace(_run(results, cost), settings=read_settings(folder, results))


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
        tasks={k: [str(c) for c in v] for k, v in results.get("tasks", {}).items()},
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
        arm=str(arm.get("arm", name)),
        task=None if arm.get("task") is None else str(arm["task"]),
        levels=tuple(_level(entry) for entry in arm.get("bound", [])),
        distance=_optional(_distance, arm.get("distance")),
        representation=_optional(_representation, arm.get("representation")),
    )


def _level(entry: dict[str, Any]) -> Level:
    return Level(
        eps=float(entry["eps"]),
        clean_loss=_mean(entry["clean_loss"]),
        head_norm=float(entry["head_norm"]),
        displacement=_mean(entry["displacement"]),
        relative=_optional(_mean, entry["relative_displacement"]),
        bound=_mean(entry["bound"]),
        loss=_mean(entry["loss"]),
    )


def _distance(entry: dict[str, Any]) -> Distance:
    return Distance(
        norm=str(entry["norm"]),
        radius=float(entry["radius"]),
        mean=_mean(entry),
        censored=int(entry["censored"]),
    )


def _representation(entry: dict[str, Any]) -> Representation:
    return Representation(
        feature_std=float(entry["feature_std"]),
        effective_rank=float(entry["effective_rank"]),
        sigma_squared_sum=_optional(float, entry["sigma_squared_sum"]),
    )


def _optional(read: Callable[[Any], T], entry: Any) -> T | None:
    return None if entry is None else read(entry)


def _mean(entry: dict[str, Any]) -> Mean:
    value, low, high = (float(entry[key]) for key in ("value", "low", "high"))
    count = int(entry["count"])
    if not low <= value <= high or count < 1:
        raise ValueError(f"{value} [{low}, {high}] of {count} is no mean")
    return Mean(value, low, high, count)


def _proportion(entry: dict[str, Any]) -> Proportion:
    value, low, high = (float(entry[key]) for key in ("value", "low", "high"))
    count = int(entry["count"])
    if not 0 <= low <= value <= high <= 1 or count < 1:
        raise ValueError(f"{value} [{low}, {high}] of {count} is no share")
    return Proportion(value, low, high, count)
