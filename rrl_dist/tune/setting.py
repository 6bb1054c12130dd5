"""What a trial is told: a run's configuration with one arm, seen flat.

Flat, an arm's `objective`, `views`, `optim`, `train` and `split` stand beside the run's
own keys, as in `rrl pretrain`; keys of a search space are those of the command line.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rrl_dist.core.errors import UserError
from rrl_dist.training.lineage import teachers

Config = Mapping[str, Any]

OF_ARM = ("objective", "views", "optim", "train", "split")
_SPLIT = "pretrain"  # of an arm that names none
TRIAL = "trial"  # the arm of a sweep that is of no experiment


def flat(config: Config, arm: str | None) -> dict[str, Any]:
    """One arm of an experiment beside the run's own keys.

    Args:
        config: with `arms`, or without them flat already.
        arm: which; needed where there are several.

    Raises:
        UserError: there is no such arm, or it is not said which.
    """
    arms = config.get("arms")
    if arms is None:
        if arm is not None:
            raise UserError(f"arm={arm} needs an experiment; give experiment=NAME")
        return {key: value for key, value in config.items() if key != "arms"}
    if arm is None or arm not in arms:
        told = f"there is no arm {arm}" if arm else "an experiment has several arms"
        raise UserError(f"{told}; choose arm={'|'.join(arms)}")
    own = {"split": _SPLIT, **{k: v for k, v in arms[arm].items() if k != "teacher"}}
    apart = {*own, "arms"}
    return {key: value for key, value in config.items() if key not in apart} | own


def teachers_of(config: Config, arm: str | None) -> tuple[str, ...]:
    """Arms that an arm learns from, its own teacher first; none of a flat one."""
    arms = config.get("arms")
    return () if arms is None or arm is None else tuple(teachers(arms, arm))


def run_of(
    setting: Config, arm: str, *, name: str, teacher: Path | None
) -> dict[str, Any]:
    """The configuration of a run with that one arm, as `Experiment` takes it.

    Args:
        setting: flat.
        arm: its name.
        name: of the run.
        teacher: folder of the model that it learns from, or None for what the setting
            says.
    """
    own = {key: setting[key] for key in OF_ARM} | {"teacher": None}
    rest = {key: value for key, value in setting.items() if key not in OF_ARM}
    known = setting.get("teacher") if teacher is None else str(teacher)
    one = {"tasks": None, "protocols": None, "head_seeds": None}
    return {**rest, **one, "name": name, "arms": {arm: own}, "teacher": known}
