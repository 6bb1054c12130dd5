"""`rrl evaluate model=WHAT name=RUN`: attack a classifier."""

import re
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rrl_dist.cli.app import (
    absolute_folders,
    identity,
    run_command,
    run_folder,
    starter,
)
from rrl_dist.cli.progress import Terminal
from rrl_dist.cli.report import show
from rrl_dist.core.errors import UserError
from rrl_dist.core.run_directory import open_run
from rrl_dist.evaluate.plan import build_suite
from rrl_dist.evaluate.rehearsal import check_suite
from rrl_dist.evaluate.settings import check_settings
from rrl_dist.evaluate.source import Source
from rrl_dist.evaluate.verification import evaluations_in, verify
from rrl_dist.experiment import Experiment
from rrl_dist.models.artefact import Artefact
from rrl_dist.training.build import load_model
from rrl_dist.training.cluster import check, session

_SHOWN = 5  # differences that are told one by one


def main() -> None:
    """Entry point; `model=WHAT` is short for `artefact=WHAT`.

    Hydra would look for a file of that name among the architectures in configs/model.
    """
    sys.argv = [
        a.replace("model=", "artefact=", 1) if a.startswith("model=") else a
        for a in sys.argv
    ]
    run_command("evaluate", evaluate)


def evaluate(config: dict[str, Any], config_yaml: str) -> None:
    """Attack a classifier; an encoder of this project's gets a linear head first."""
    check_settings(config["evaluate"])
    if config["verify"] is not None:
        attack_again(config)
        return
    for key in ("artefact", "name"):
        if config[key] is None:
            raise UserError(f"{key} is not set; give {key}=VALUE")
    terminal = Terminal()
    config = absolute_folders(config)
    check(config["cluster"])
    source = _source(config)
    suite = build_suite(config["suite"], config["ball"], seed=0)
    check_suite(source.model, suite, has_encoder=source.has_encoder)
    own = source.kind == "own"
    arm, about, encoder = _of_own(source) if own else _of_another(source)
    arms = about["arms"]
    folder = run_folder(config)
    # A classifier that is there already was made by whatever made it.
    left_out = () if encoder is not None else ("protocol",)
    whole = {k: v for k, v in config.items() if k not in left_out} | about
    with ExitStack() as stack:
        start = starter(stack, config, folder)
        experiment = Experiment(whole, folder, start, terminal)
        known = identity("evaluate", arms, config["data"])
        stack.enter_context(open_run(folder, known, config_yaml))
        experiment.prepare()
        (judge,) = experiment.judges
        if encoder is not None:
            source = Source(str(experiment.probe(arm, judge, encoder)))
        found = experiment.evaluate(arm, judge, source)
        experiment.summarize({judge.entry(arm): found})
    show([folder], folder, terminal)


def attack_again(config: Mapping[str, Any]) -> None:
    """Attack some samples of a finished run again, and hold them against its rows.

    Raises:
        UserError: there is no such run, or rows came out otherwise.
    """
    terminal, named = Terminal(), Path(str(config["verify"])).expanduser()
    run = named if named.is_dir() else Path(config["storage"]) / named
    count, wrong = int(config["evaluate"]["verify_samples"]), 0
    with session({**config["cluster"], "kind": "debug", "workers": 1}) as here:
        for folder in evaluations_in(run):
            found = verify(folder, here, samples=count, seed=config["seed"])
            told = "as they were"
            if found.differences:
                wrong += len(found.differences)
                told = f"{len(found.differences)} otherwise"
            terminal.notify(f"{folder.name}: {found.rows} rows made again, {told}")
            for difference in found.differences[:_SHOWN]:
                terminal.notify(str(difference))
    if wrong:
        raise UserError(
            f"{wrong} rows of {run} came out otherwise; another device or another "
            "version of torch may round otherwise (environment.json), or rows were "
            "changed"
        )


def _source(config: Mapping[str, Any]) -> Source:
    """Folders and files do not depend on where a worker is started.

    Raises:
        UserError: settings that do not go together.
    """
    weights = config["weights"]
    return Source(
        str(config["artefact"]),
        weights=None if weights is None else str(weights),
        mean=_numbers("mean", config["mean"]),
        std=_numbers("std", config["std"]),
        folder=str(Path.cwd()),
    ).absolute()


def _numbers(name: str, values: Any) -> tuple[float, ...] | None:
    if values is None:
        return None
    if not isinstance(values, list | tuple):
        raise UserError(f"{name}={values}; give three numbers, such as [0.5,0.5,0.5]")
    return tuple(values)


def _of_own(source: Source) -> tuple[str, dict[str, Any], Path | None]:
    """Arm, what an experiment is told of it, and the encoder if it has no head."""
    folder = source.path
    artefact = load_model(folder)
    training = _training(artefact)
    if not _names_a_method(training):
        raise UserError(
            f"{folder / 'model.json'} does not say what objective trained the model; "
            "give a model that rrl has written"
        )
    encoder = None if artefact.classes else folder
    made_by = artefact.training.get("protocol") if artefact.classes else None
    arms = {folder.name: {"objective": training["objective"], "teacher": None}}
    about = {"arms": arms, "model": artefact.model, "probe": None, "encoder": encoder}
    return folder.name, {**about, "made_by": made_by}, encoder


def _of_another(source: Source) -> tuple[str, dict[str, Any], None]:
    """As `_of_own`; the name is all that is known."""
    arm = re.sub(r"[^\w.-]+", "-", source.model)
    arms = {arm: {"objective": source.model, "teacher": None}}
    return arm, {"arms": arms, "model": source.model, "probe": None}, None


def _training(artefact: Artefact) -> Any:
    """What gave the model its name: of a classifier that a protocol made, the training
    of the encoder that it began with."""
    training: Any = artefact.training
    if "protocol" in training:
        training = training.get("encoder", training)
    while _left_the_encoder(training) and "encoder" in training:
        training = training["encoder"]
    return training


def _left_the_encoder(training: Any) -> bool:
    """Whether it trained a head alone."""
    objective = training.get("objective") if isinstance(training, dict) else None
    return isinstance(objective, dict) and objective.get("train_encoder") is False


def _names_a_method(training: Any) -> bool:
    objective = training.get("objective") if isinstance(training, dict) else None
    return isinstance(objective, dict) and "_target_" in objective
