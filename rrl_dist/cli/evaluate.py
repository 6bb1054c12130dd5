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
    # A probed classifier is named after what its encoder was trained with.
    training = artefact.training.get("encoder", artefact.training)
    if not isinstance(training, dict) or "objective" not in training:
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
        images = experiment.prepare()
        if not artefact.classes:
            model = experiment.probe(arm, images, model)
        experiment.summarize({arm: experiment.evaluate(arm, images, model)})
    show([folder], folder, terminal)
