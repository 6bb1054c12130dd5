"""What a training stage of an experiment is told, and what its result depends on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rrl_dist import __version__
from rrl_dist.core.errors import UserError
from rrl_dist.models.artefact import load_artefact, projector_hash
from rrl_dist.training.build import head_of, offered

Config = Mapping[str, Any]

# What a training stage's result depends on, folders of models aside.
_IDENTIFYING = ("seed", "split", "model", "objective", "views", "optim")
_WITHOUT_EFFECT = (
    "log_every",
    "breakdown",
    "checkpoint_every",
    "checkpoints",
    "micro_batch",
    "cache_teacher",
)


def pretrain_stage(config: Config, arm: str, teacher: Path | None) -> dict[str, Any]:
    """Configuration of an arm's training stage, as `train_stage` takes it."""
    own = config["arms"][arm]
    taught_by = config["arms"].get(own["teacher"])
    return {
        **_common(config),
        **{key: own[key] for key in ("objective", "views", "optim", "train")},
        "split": own.get("split", "pretrain"),
        "model": config["model"],
        "probe": config["probe"],
        "init": config.get("init"),
        "teacher": None if teacher is None else str(teacher),
        "teacher_objective": None if taught_by is None else taught_by["objective"],
    }


def probe_stage(config: Config, encoder: Path) -> dict[str, Any]:
    """Configuration of the stage that puts a head on an encoder, and may train both.

    A protocol that holds the encoder against what it was has it as teacher too.
    """
    own = config["protocol"]
    taught = _takes_teacher(own["objective"])
    return {
        **_common(config),
        **{key: own[key] for key in ("objective", "views", "optim", "train")},
        "split": "train",
        "model": None,
        "probe": None,
        "init": str(encoder),
        "teacher": str(encoder) if taught else None,
        **{key: own[key] for key in ("head", "batch_norm", "cache_features")},
        "protocol": own["name"],
    }


def given_teacher(config: Config, arm: str) -> Path | None:
    """The folder `teacher` of a configuration, for an arm whose method takes one and
    that learns from no other arm."""
    own, folder = config["arms"][arm], config.get("teacher")
    taken = folder is not None and _takes_teacher(own["objective"])
    return Path(str(folder)) if taken and own["teacher"] is None else None


def _takes_teacher(objective: Config) -> bool:
    """Whether a method, or one inside it, names a teacher in its constructor."""
    base = objective.get("base")
    inside = isinstance(base, Mapping) and _takes_teacher(base)
    return inside or "teacher" in offered(objective, teacher=None)


def check_init(objective: Config, key: str = "objective") -> None:
    """Hold a method against a model to begin with.

    Raises:
        UserError: it begins with its teacher's weights instead.
    """
    if objective.get("start_from_teacher"):
        raise UserError(
            "the teacher's weights would take the place of those in init=; set "
            f"{key}.start_from_teacher=false, or leave out init="
        )
    if isinstance(objective.get("base"), Mapping):
        check_init(objective["base"], f"{key}.base")


def _common(config: Config) -> dict[str, Any]:
    keys = ("name", "seed", "data", "strategy", "loader", "betons")
    return {
        **{key: config[key] for key in keys},
        "threads": int(config["cluster"]["threads"]),
    }


def identifying(stage: Config) -> dict[str, Any]:
    """What a training stage's result depends on, folders replaced by weights."""
    parents = {
        key: None if stage[key] is None else load_artefact(Path(stage[key])).sha256
        for key in ("init", "teacher")
    }
    if stage["teacher"] is not None:
        parents["teacher_projector"] = projector_hash(Path(stage["teacher"]))
    settings = {key: _of_effect(stage[key]) for key in (*_IDENTIFYING, "train")}
    settings |= head_of(stage)
    # The rest of a strategy, as the number of workers, changes last digits only.
    settings["precision"] = stage["strategy"]["precision"]
    return {"code": __version__, **settings, **parents}


def _of_effect(setting: Any) -> Any:
    """Without what changes how a result is reached, and not the result."""
    if not isinstance(setting, Mapping):
        return setting
    kept = {k: v for k, v in setting.items() if k not in _WITHOUT_EFFECT}
    return {k: _of_effect(v) for k, v in kept.items()}
