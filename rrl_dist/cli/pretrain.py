"""`rrl pretrain objective=NAME name=RUN`: one training stage."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig

from rrl_dist.cli.app import (
    absolute_folders,
    identity,
    run_command,
    run_folder,
    starter,
)
from rrl_dist.cli.progress import Terminal
from rrl_dist.core.errors import UserError
from rrl_dist.core.run_directory import open_run
from rrl_dist.overfit import experiment_of, overfitting
from rrl_dist.stages import check_init
from rrl_dist.training.build import load_model
from rrl_dist.training.cluster import check

ARM = "encoder"


def main() -> None:
    """Entry point."""
    run_command("pretrain", pretrain)


def pretrain(config: dict[str, Any], config_yaml: str) -> None:
    """Train an encoder, an experiment's arm on its own."""
    terminal = Terminal()
    config = absolute_folders(config)
    check(config["cluster"])
    config = overfitting(config)
    for key in ("teacher", "init"):
        if config[key] is not None:
            config[key] = str(Path(config[key]).expanduser().absolute())
    if config["init"] is not None:
        config["model"] = _model_of_init(config)
    keys = ("objective", "views", "optim", "train", "split")
    arm = {**{key: config.pop(key) for key in keys}, "teacher": None}
    folder = run_folder(config)
    with ExitStack() as stack:
        start = starter(stack, config, folder)
        whole = {**config, "arms": {ARM: arm}}
        experiment = experiment_of(whole, folder, start, terminal)
        about = identity("pretrain", {ARM: arm}, config["data"])
        stack.enter_context(open_run(folder, about, config_yaml))
        experiment.prepare()
        teacher = config["teacher"]
        experiment.pretrain(ARM, None if teacher is None else Path(teacher))
    terminal.notify(f"{folder / 'models' / ARM}")


def _model_of_init(config: Mapping[str, Any]) -> dict[str, Any]:
    """What describes the model in `init`, in place of what `model=` says.

    Raises:
        UserError: there is no such model, a teacher's weights would take its place, or
            `model=` was given and describes another.
    """
    check_init(config["objective"])
    folder = Path(config["init"])
    theirs = load_model(folder).model
    given = [o.lstrip("+~").partition("=")[0] for o in HydraConfig.get().overrides.task]
    chosen = {key for key in given if key.partition(".")[0] == "model"}
    # Unless they were given too: mean and std came with data=, and are the encoder's
    # own once it is trained.
    apart = {"model.mean", "model.std"} - chosen
    for key in sorted(chosen):
        ours, found = (_at(whole, key) for whole in (config, {"model": theirs}))
        _check_same(key, ours, found, folder, apart)
    return theirs


def _at(config: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key; None where there is none."""
    node: Any = config
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def _check_same(
    key: str, ours: Any, theirs: Any, folder: Path, apart: set[str]
) -> None:
    """Raises UserError for the first setting that the model on disk has otherwise."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        for name in sorted(ours.keys() | theirs.keys()):
            inner = f"{key}.{name}"
            if inner not in apart:
                _check_same(inner, ours.get(name), theirs.get(name), folder, apart)
    elif ours != theirs:
        raise UserError(
            f"{key} is {ours} here and {theirs} in init={folder}, which settles it; "
            "leave it out, or leave out init="
        )
