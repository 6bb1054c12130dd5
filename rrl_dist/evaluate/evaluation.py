"""One evaluation: a classifier, a suite of attacks, rows, and the numbers of them."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rrl_dist.core.aggregate import accuracy, by_component, mean_of, rounded
from rrl_dist.core.errors import UserError
from rrl_dist.core.records import Row, read_rows
from rrl_dist.core.storage import read_json, write_json
from rrl_dist.evaluate.bound import bound_along
from rrl_dist.evaluate.plan import (
    CLEAN,
    Picture,
    Suite,
    Survey,
    Task,
    build_suite,
    cut,
)
from rrl_dist.evaluate.pool import Progress, run_tasks
from rrl_dist.evaluate.robust import Job, chosen_images

SCHEMA = 1
SURVEY = Survey()


def evaluate(
    job: Job,
    folder: Path,
    cluster: Mapping[str, Any],
    *,
    progress: Callable[[int], Progress],
) -> dict[str, Any]:
    """Run what is missing of an evaluation, and write `results.json`.

    Args:
        job: see `Evaluator`; also `fingerprint` (all that the rows depend on),
            `unit_atoms` and `gallery` (a number of images).
        folder: the evaluation's run directory.
        cluster: see `run_tasks`.
        progress: called with the total number of (sample, component) pairs; its result
            is then called with each number of them that is finished.

    Returns:
        what `results.json` holds.

    Raises:
        UserError: the folder holds rows of another evaluation.
    """
    suite = build_suite(job["suite"], job["ball"], seed=int(job["seed"]))
    samples = len(chosen_images(job))
    units = cut(list(suite.attacks), samples, unit_atoms=int(job["unit_atoms"]))
    _claim(folder, {**job["fingerprint"], "unit_atoms": job["unit_atoms"]})
    tasks: list[Task] = [*units, SURVEY]
    if int(job["gallery"]) > 0:
        tasks.append(Picture(suite.shown, int(job["gallery"])))
    run_tasks(job, tasks, folder, cluster, progress(sum(u.samples for u in units)))
    rows = read_rows([folder / unit.file for unit in units])
    if len(rows) != samples * len(suite.attacks):
        raise RuntimeError(f"{len(rows)} rows in {folder} for {samples} images")
    results = summarize(rows, suite, read_json(folder / SURVEY.file))
    write_json(folder / "results.json", results)
    return results


def _claim(folder: Path, fingerprint: Mapping[str, Any]) -> None:
    """Write the manifest, or hold the one that is there against this evaluation."""
    path = folder / "manifest.json"
    if not path.is_file():
        write_json(path, {"fingerprint": dict(fingerprint)})
        return
    theirs = read_json(path)["fingerprint"]
    names = sorted(fingerprint.keys() | theirs.keys())
    wrong = [name for name in names if fingerprint.get(name) != theirs.get(name)]
    if wrong:
        raise UserError(
            f"{folder} holds an evaluation with another {', '.join(wrong)}; "
            "choose another name="
        )


def summarize(
    rows: list[Row], suite: Suite, survey: Mapping[str, Any]
) -> dict[str, Any]:
    """Accuracies of the components, of the worst of them, and along the curve; the
    bound, the distance to the nearest adversarial image, and the encoder's measures.

    Holds no times, paths or worker counts: two evaluations of one thing are equal.

    Args:
        rows: of all components.
        suite: what was run.
        survey: what a `Survey` leaves.
    """
    groups = by_component(rows)
    numbers = {name: accuracy(group).as_dict() for name, group in groups.items()}
    worst = accuracy(row for name in suite.full for row in groups[name])
    norm, unit = survey["head_norm"], survey["spread"]
    return {
        "schema": SCHEMA,
        "components": {name: numbers[name] for name in suite.full},
        "worst": worst.as_dict(),
        "curve": [{"eps": eps, **numbers[name]} for eps, name in suite.curve],
        "bound": bound_along(
            groups, suite.levels, clean=CLEAN, head_norm=norm, spread=unit
        ),
        "distance": _nearest(groups, suite),
        "representation": _representation(survey),
    }


def _nearest(
    groups: Mapping[str, Sequence[Row]], suite: Suite
) -> dict[str, Any] | None:
    """Mean distance to the nearest adversarial image that the search has found.

    An image that is wrong itself is at distance 0; one that was never broken counts
    with the largest radius tried, and is counted as censored.
    """
    if suite.search is None:
        return None
    attack, rows = suite.attacks[suite.search], groups[suite.search]
    assert attack is not None
    ball = attack.ball
    mean = mean_of([ball.eps if row.correct else row.distance for row in rows])
    return {
        "norm": ball.norm,
        "radius": ball.eps,
        **mean.as_dict(),
        "censored": sum(row.correct for row in rows),
    }


def _representation(survey: Mapping[str, Any]) -> dict[str, Any]:
    """What a `Survey` leaves, rounded, with the sum of the squares of its sigmas."""
    numbers = {key: rounded(v) for key, v in survey.items() if key != "sigmas"}
    sigmas = survey["sigmas"]
    if sigmas is None:
        return {**numbers, "sigmas": None, "sigma_squared_sum": None}
    return {
        **numbers,
        "sigmas": {name: rounded(sigma) for name, sigma in sigmas.items()},
        "sigma_squared_sum": rounded(math.fsum(s**2 for s in sigmas.values())),
    }
