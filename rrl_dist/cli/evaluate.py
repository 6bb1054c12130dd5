"""`rrl evaluate model=FOLDER name=RUN`: attack a classifier."""

import sys
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
from rrl_dist.experiment import Experiment
from rrl_dist.models.artefact import Artefact
from rrl_dist.training.build import load_model
from rrl_dist.training.cluster import check


def main() -> None:
    """Entry point; `model=FOLDER` is short for `artefact=FOLDER`.

    Hydra would look for a file of that name among the architectures in configs/model.
    """
    sys.argv = [
        a.replace("model=", "artefact=", 1) if a.startswith("model=") else a
        for a in sys.argv
    ]
    run_command("evaluate", evaluate)


def evaluate(config: dict[str, Any], config_yaml: str) -> None:
    """Attack a classifier; an encoder gets a linear head first."""
    terminal = Terminal()
    config = absolute_folders(config)
    check(config["cluster"])
    model = Path(config["artefact"]).expanduser().absolute()
    artefact = load_model(model)
    arm = model.name
    training = _training(artefact)
    if not _names_a_method(training):
        raise UserError(
            f"{model / 'model.json'} does not say what objective trained the model; "
            "give a model that rrl has written"
        )
    arms = {arm: {"objective": training["objective"], "teacher": None}}
    folder = run_folder(config)
    with ExitStack() as stack:
        start = starter(stack, config["cluster"], folder)
        whole = {**config, "arms": arms, "model": artefact.model, "probe": None}
        experiment = Experiment(whole, folder, start, terminal)
        about = identity("evaluate", arms, config["data"])
        stack.enter_context(open_run(folder, about, config_yaml))
        experiment.prepare()
        part = experiment.whole
        if not artefact.classes:
            model = experiment.probe(arm, part, model)
        experiment.summarize({(arm, None): experiment.evaluate(arm, part, model)})
    show([folder], folder, terminal)


def _training(artefact: Artefact) -> Any:
    """What gave the model its name: of a probed classifier, its encoder's training."""
    training = artefact.training
    objective = training.get("objective")
    probed = isinstance(objective, dict) and objective.get("train_encoder") is False
    return training.get("encoder", training) if probed else training


def _names_a_method(training: Any) -> bool:
    objective = training.get("objective") if isinstance(training, dict) else None
    return isinstance(objective, dict) and "_target_" in objective
