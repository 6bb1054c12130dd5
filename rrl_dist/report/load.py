"""A finished run, read from its folder."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from rrl_dist.core.aggregate import Mean, Proportion
from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import read_json
from rrl_dist.report.run import (
    Arm,
    Calibration,
    CalibrationErrors,
    Corruptions,
    Distance,
    Level,
    Point,
    Representation,
    Run,
    Step,
    Verdict,
    Vulnerability,
)
from rrl_dist.report.settings import read_settings

SCHEMAS = (1, 2, 3)  # the first has no verdict, the second no calibration
T = TypeVar("T")


def load_run(folder: Path) -> Run:
    """The run in `folder`.

    Raises:
        UserError: if a file is missing or damaged, or has another schema.
    """
    results = _read(folder, "results.json")
    cost = _read(folder, "cost.json")
    found = results.get("schema")
    if found not in SCHEMAS:
        raise UserError(
            f"{folder / 'results.json'} has schema {found!r}, this version reads "
            f"{', '.join(map(str, SCHEMAS))}; evaluate the run again, or report "
            "with the version of the run"
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
        tasks={
            name: [str(one) for one in classes or ()]
            for name, classes in results.get("tasks", {}).items()
        },
    )


def _arm(name: str, arm: dict[str, Any], cost: dict[str, Any] | None) -> Arm:
    points = [Point(float(p["eps"]), _proportion(p)) for p in arm.get("curve", [])]
    return Arm(
        name=name,
        objective=_optional(str, arm["objective"]),
        backbone=str(arm["backbone"]),
        protocol=_optional(str, arm["protocol"]),
        components={k: _proportion(v) for k, v in arm["components"].items()},
        worst=_proportion(arm["worst"]),
        curve=tuple(sorted(points, key=lambda point: point.eps)),
        minutes=None if cost is None else float(cost["seconds"]) / 60,
        arm=str(arm.get("arm", name)),
        task=_optional(str, arm.get("task")),
        head_seed=_optional(int, arm.get("head_seed")),
        levels=tuple(_level(entry) for entry in arm.get("bound") or ()),
        distance=_optional(_distance, arm.get("distance")),
        representation=_optional(_representation, arm.get("representation")),
        vulnerability=_optional(_vulnerability, arm.get("vulnerability")),
        corruptions=_optional(_corruptions, arm.get("corruptions")),
        after={
            name: tuple(Step(str(s["attack"]), _proportion(s)) for s in entry["after"])
            for name, entry in arm["components"].items()
            if "after" in entry
        },
        verdict=_optional(_verdict, arm.get("verdict")),
        calibration=_optional(_calibration, arm.get("calibration")),
        data=_optional(str, arm.get("data")),
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
        attack=_optional(str, entry.get("attack")),
        median=_optional(float, entry.get("median")),
        curve=tuple(
            Point(float(p["eps"]), _proportion(p)) for p in entry.get("curve", ())
        ),
    )


def _representation(entry: dict[str, Any]) -> Representation:
    sigmas = entry.get("sigmas")
    return Representation(
        feature_std=float(entry["feature_std"]),
        effective_rank=float(entry["effective_rank"]),
        sigma_squared_sum=_optional(float, entry["sigma_squared_sum"]),
        largest_sigma=max(map(float, sigmas.values())) if sigmas else None,
    )


def _vulnerability(entry: dict[str, Any]) -> Vulnerability:
    return Vulnerability(
        estimator=str(entry["estimator"]),
        batch_size=int(entry["batch_size"]),
        log_batch_size=float(entry["log_batch_size"]),
        normal=_mean_of_batches(entry["normal"]),
        worst=_mean_of_batches(entry["worst"]),
        difference=_mean_of_batches(entry["vulnerability"]),
        risk=_mean_of_batches(entry["adversarial_risk"]),
        near_ceiling=bool(entry["near_ceiling"]),
    )


def _corruptions(entry: dict[str, Any]) -> Corruptions:
    return Corruptions(
        error=_mean(entry["error"]),
        kinds={name: _mean(kind["error"]) for name, kind in entry["kinds"].items()},
        images=_images_of(entry),
        mce=_optional(_mean, (entry.get("mce") or {}).get("cifar_c")),
        mce_imagenet=_optional(_mean, (entry.get("mce") or {}).get("imagenet_c")),
        validation=_optional(_mean, entry.get("validation")),
    )


def _images_of(entry: dict[str, Any]) -> str:
    """Where they come from; made-up frost is told of."""
    told = [str(entry.get("generated", "regenerated"))]
    made_up = entry.get("frost") == "synthetic frost"
    return ", ".join([*told, *(["synthetic frost"] if made_up else [])])


def _calibration(entry: dict[str, Any]) -> Calibration:
    errors = {"clean": entry["components"].get("clean")}
    errors |= {kind: entry[kind] for kind in ("worst", "corrupted")}
    diagrams = entry["reliability"]
    return Calibration(
        binning=str(entry["binning"]),
        interval=str(entry["interval"]),
        outputs={
            kind: CalibrationErrors(
                ece=_mean(found["ece"]),
                rms=_mean(found["rms"]),
                diagram=tuple(
                    (float(b["confidence"]), float(b["accuracy"]), int(b["count"]))
                    for b in diagrams[kind]
                    if b["count"]
                ),
            )
            for kind, found in errors.items()
            if found is not None
        },
    )


def _verdict(entry: dict[str, Any]) -> Verdict:
    level = str(entry["level"])
    if level not in ("pass", "suspect", "fail"):
        raise ValueError(f"{level} is no verdict")
    bad = {n: c for n, c in entry["checks"].items() if c["level"] == level}
    return Verdict(
        level=level,
        against={name: str(check["told"]) for name, check in bad.items()},
        stronger={name: str(check["stronger"]) for name, check in bad.items()},
    )


def _optional(read: Callable[[Any], T], entry: Any) -> T | None:
    return None if entry is None else read(entry)


def _mean(entry: dict[str, Any]) -> Mean:
    value, low, high = (float(entry[key]) for key in ("value", "low", "high"))
    count = int(entry["count"])
    if not low <= value <= high or count < 1:
        raise ValueError(f"{value} [{low}, {high}] of {count} is no mean")
    return Mean(value, low, high, count)


def _mean_of_batches(entry: dict[str, Any]) -> Mean:
    """Of one batch there is no interval, and the mean has no width."""
    only = entry["value"] if entry["count"] == 1 else None
    ends = {key: only if entry[key] is None else entry[key] for key in ("low", "high")}
    return _mean({**entry, **ends})


def _proportion(entry: dict[str, Any]) -> Proportion:
    value, low, high = (float(entry[key]) for key in ("value", "low", "high"))
    count = int(entry["count"])
    if not 0 <= low <= value <= high <= 1 or count < 1:
        raise ValueError(f"{value} [{low}, {high}] of {count} is no share")
    return Proportion(value, low, high, count)
