"""`rrl evaluate model=FOLDER name=RUN`: attack a classifier."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rrl_dist.cli.app import absolute_folders, run_command
from rrl_dist.cli.progress import Terminal
from rrl_dist.cli.report import show
from rrl_dist.core.run_directory import describe_run, locked
from rrl_dist.experiment import Config, Experiment
from rrl_dist.models.artefact import load_artefact
from rrl_dist.training.cluster import session


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
    model = Path(config["artefact"]).expanduser().absolute()
    artefact = load_artefact(model)
    arm = model.name
    # A probed classifier is named after what its encoder was trained with.
    training = artefact.training.get("encoder", artefact.training)
    arms = {arm: {"objective": training["objective"], "teacher": None}}
    folder = Path(config["storage"]) / str(config["name"])
    with ExitStack() as stack:

        def start() -> Config:
            return stack.enter_context(session(config["cluster"]))

        whole = {**config, "arms": arms, "model": artefact.model, "probe": None}
        experiment = Experiment(whole, folder, start, terminal)
        stack.enter_context(locked(folder))
        describe_run(folder, config_yaml)
        images = experiment.prepare()
        if not artefact.classes:
            model = experiment.probe(arm, images, model)
        experiment.summarize({arm: experiment.evaluate(arm, images, model)})
    show([folder], folder, terminal)
