"""A result as an entry of RobustBench's leaderboard (their model_info/*.json)."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import write_json

_COMPONENT = "autoattack"
_NORMS = {"linf": "Linf", "l2": "L2"}


def write_entry(
    folder: Path,
    results: Mapping[str, Any],
    arm: str,
    *,
    images: int,
    notify: Callable[[str], None],
) -> None:
    """Leave an arm's entry as `leaderboard/ARM.json` in a run's folder, where it has a
    place there; where the verdict is fail, a line says why there is none.

    Args:
        folder: of the run.
        results, arm, images: see `leaderboard_entry`.
        notify: told that line.

    Raises:
        UserError: the results are of another form.
    """
    file = folder / "leaderboard" / f"{arm}.json"
    entry, why = _entry(results, arm, images), refusal(results, arm)
    if why is not None:
        file.unlink(missing_ok=True)  # of an evaluation without a verdict
        if entry is not None:
            notify(why)
    elif entry is not None:
        write_json(file, entry)


def refusal(results: Mapping[str, Any], arm: str) -> str | None:
    """Why a result must not be told to others as it is; None if nothing speaks against
    it, or if it has no verdict."""
    verdict = results.get("arms", {}).get(arm, {}).get("verdict")
    if verdict is None or verdict["level"] != "fail":
        return None
    failed = [k for k, check in verdict["checks"].items() if check["level"] == "fail"]
    reasons = ", ".join(name.replace("_", " ") for name in failed)
    return f"{arm} has no leaderboard entry, its verdict is fail: {reasons}"


def leaderboard_entry(
    results: Mapping[str, Any], arm: str, *, images: int
) -> dict[str, Any] | None:
    """What their file of a model holds; None of a result that has no place there.

    That is one without AutoAttack's standard version at the full radius, in a norm that
    they do not list, or not of all test images. What is not known
    here is null, to be filled in by whoever submits it.

    Args:
        results: a run's `results.json`.
        arm: name of one of its arms.
        images: of the test split.

    Raises:
        UserError: the results are of another form, or the verdict on them is fail.
    """
    entry, why = _entry(results, arm, images), refusal(results, arm)
    if entry is not None and why is not None:
        raise UserError(f"{why}; docs/verdict.md tells what to run")
    return entry


def _entry(results: Mapping[str, Any], arm: str, images: int) -> dict[str, Any] | None:
    """As `leaderboard_entry`, whatever the verdict."""
    try:
        own = results["arms"][arm]
        norm, eps = _NORMS.get(results["norm"]), float(results["eps"])
        label = f"{_COMPONENT}-{results['norm']}@"
        attacked = [own["components"][k] for k in own["components"] if label in k]
        whole = results["split"] == "test" and own["worst"]["count"] == images
        if norm is None or not attacked or not whole:
            return None
        clean = own["components"]["clean"]
        return {
            "link": None,
            "name": own["objective"],
            "authors": None,
            "additional_data": None,
            "number_forward_passes": 1,
            "dataset": own.get("data", results["data"]),
            "venue": None,
            "architecture": own["backbone"],
            "eps": _radius(norm, eps),
            "clean_acc": _percent(clean),
            "reported": _percent(attacked[0]),
            "autoattack_acc": _percent(attacked[0]),
            "unreliable": None,
        }
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the results of {arm} lack {error}; evaluate again") from None


def _percent(share: Mapping[str, Any]) -> str:
    return f"{100 * share['value']:.2f}"


def _radius(norm: str, eps: float) -> str:
    """As they write it: "8/255" in Linf, a decimal number in L2."""
    steps = 255 * eps
    whole = norm == "Linf" and abs(steps - round(steps)) < 1e-3
    return f"{round(steps)}/255" if whole else f"{eps:g}"
