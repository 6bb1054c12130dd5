"""The arms of one experiment side by side: its `results.json` and `cost.json`."""

from collections.abc import Mapping
from typing import Any

from rrl_dist.training.build import build
from rrl_dist.training.lineage import teachers

Config = Mapping[str, Any]
SCHEMA = 1


def compare(config: Config, arms: Mapping[str, Config]) -> dict[str, Any]:
    """What `results.json` holds: no times, paths or worker counts.

    Args:
        config: the experiment's.
        arms: each evaluated arm's numbers, in the order to show them.
    """
    ball, curve = build(config["ball"]), config["suite"]["curve"]
    about = {
        "backbone": _backbone_name(config["model"]),
        "protocol": config["protocol"]["name"],
    }
    return {
        "schema": SCHEMA,
        "name": config["name"],
        "data": config["data"]["name"],
        "split": "test",
        "seed": config["seed"],
        "seeds": 1,
        "norm": ball.norm,
        "eps": ball.eps,
        "curve_attack": None if curve is None else curve["attack"],
        "arm_order": list(arms),
        "arms": {
            arm: {
                "objective": _class_name(config["arms"][arm]["objective"]),
                **about,
                **{k: v for k, v in numbers.items() if k != "schema"},
            }
            for arm, numbers in arms.items()
        },
    }


def costs(
    arms: Mapping[str, Any], seconds: Mapping[str, float], device: str | None
) -> dict[str, Any]:
    """What `cost.json` holds: seconds by stage, and by arm with its teachers'.

    Args:
        arms: the experiment's arms, with their teachers.
        seconds: by stage, such as "pretrain-simclr".
        device: in words.
    """
    by_arm = {}
    for arm in arms:
        mine = [f"{kind}-{arm}" for kind in ("pretrain", "probe", "evaluate")]
        mine += [f"pretrain-{teacher}" for teacher in teachers(arms, arm)]
        spent = sum(seconds.get(name, 0.0) for name in mine)
        by_arm[arm] = {"seconds": round(spent, 1)}
    return {
        "stages": {name: {"seconds": value} for name, value in seconds.items()},
        "arms": by_arm,
        "device": device,
    }


def _class_name(config: Config) -> str:
    return str(config["_target_"]).rpartition(".")[2]


def _backbone_name(model: Config) -> str:
    backbone = model["backbone"]
    return str(backbone.get("name", _class_name(backbone)))
