"""The arms of one experiment side by side: its `results.json` and `cost.json`."""

from collections.abc import Iterable, Mapping
from typing import Any

from rrl_dist.evaluate.entries import Entry
from rrl_dist.evaluate.heads import over_heads
from rrl_dist.training.build import build
from rrl_dist.training.lineage import teachers

Config = Mapping[str, Any]
SCHEMA = 3


def compare(config: Config, found: Mapping[Entry, Config]) -> dict[str, Any]:
    """What `results.json` holds: no times, paths or worker counts.

    Args:
        config: the experiment's. A classifier that is not this project's has its
            name as `model` and as its arm's `objective`. Without `protocol`,
            `made_by` is the name of the one that made the classifier, if known.
        found: numbers by what they are about, in the order to show them.
    """
    ball, curve = build(config["ball"]), config["suite"]["curve"]
    about = {
        "backbone": _backbone_name(config["model"]),
        "protocol": _protocol_of(config),
    }
    heads = over_heads(found)
    return {
        "schema": SCHEMA,
        "name": config["name"],
        "data": config["data"]["name"],
        "split": config["evaluate"]["split"],
        "seed": config["seed"],
        "seeds": 1,
        "norm": ball.norm,
        "eps": ball.eps,
        "curve_attack": None if curve is None else curve["attack"],
        **_tasks(config),
        "arm_order": [entry.name for entry in found],
        "arms": {
            entry.name: {
                "objective": _method_of(config["arms"][entry.arm]["objective"]),
                **about,
                **entry.parts,
                **_set_of(config, entry.task),
                **{k: v for k, v in numbers.items() if k != "schema"},
            }
            for entry, numbers in found.items()
        },
        **({"heads": heads} if heads else {}),
    }


def _protocol_of(config: Config) -> str | None:
    if "protocol" in config:
        return str(config["protocol"]["name"])
    made_by = config.get("made_by")
    return None if made_by is None else str(made_by)


def _tasks(config: Config) -> dict[str, Any]:
    """The tasks' classes, where there are tasks; null for all of another data set."""
    tasks = config.get("tasks")
    if tasks is None:
        return {}
    classes = {k: v["classes"] if _is_set(v) else v for k, v in tasks.items()}
    return {"tasks": {k: None if v is None else list(v) for k, v in classes.items()}}


def _is_set(task: Any) -> bool:
    return isinstance(task, Mapping)


def _set_of(config: Config, task: str | None) -> dict[str, str]:
    """The data set of a task that has its own."""
    own: Any = None if task is None else config["tasks"][task]
    return {"data": str(own["name"])} if _is_set(own) else {}


def costs(
    arms: Mapping[str, Any],
    entries: Iterable[Entry],
    seconds: Mapping[str, float],
    device: str | None,
) -> dict[str, Any]:
    """What `cost.json` holds: seconds by stage, and by entry with its teachers'.

    Args:
        arms: the experiment's arms, with their teachers.
        entries: what was evaluated.
        seconds: by stage, such as "pretrain-simclr".
        device: in words.
    """
    by_entry = {}
    for entry in entries:
        line = (entry.arm, *teachers(arms, entry.arm))
        mine = [f"pretrain-{arm}" for arm in line]
        mine += [f"{kind}-{entry.name}" for kind in ("probe", "evaluate")]
        spent = sum(seconds.get(name, 0.0) for name in mine)
        by_entry[entry.name] = {"seconds": round(spent, 1)}
    return {
        "stages": {name: {"seconds": value} for name, value in seconds.items()},
        "arms": by_entry,
        "device": device,
    }


def _method_of(objective: Config | str) -> str | None:
    """None where it is not known how a classifier was trained."""
    return None if isinstance(objective, str) else method_name(objective)


def method_name(objective: Config) -> str:
    """ "SimCLR"; "TARRL(SimCLR)" for a method around another."""
    name, base = _class_name(objective), objective.get("base")
    return f"{name}({method_name(base)})" if isinstance(base, Mapping) else name


def _class_name(config: Config) -> str:
    return str(config["_target_"]).rpartition(".")[2]


def _backbone_name(model: Config | str) -> str:
    if isinstance(model, str):
        return model
    backbone = model["backbone"]
    return str(backbone.get("name", _class_name(backbone)))
