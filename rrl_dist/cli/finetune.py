"""`rrl finetune init=FOLDER protocol=NAME name=RUN`: a head on an encoder."""

import os
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
from rrl_dist.core.run_directory import open_run
from rrl_dist.overfit import experiment_of, overfitting
from rrl_dist.training.build import load_model
from rrl_dist.training.cluster import check


def main() -> None:
    """Entry point."""
    run_command("finetune", finetune)


def finetune(config: dict[str, Any], config_yaml: str) -> None:
    """Train a head, or head and encoder, as an experiment's stage on its own."""
    terminal = Terminal()
    config = absolute_folders(config)
    check(config["cluster"])
    config = overfitting(config)
    # Normalized: its last part names the classifier.
    init = Path(os.path.abspath(Path(str(config["init"])).expanduser()))
    artefact = load_model(init)
    arm = init.name
    arms = {arm: {"objective": config["protocol"]["objective"], "teacher": None}}
    about = {"arms": arms, "model": artefact.model, "probe": None, "encoder": init}
    folder = run_folder(config)
    with ExitStack() as stack:
        start = starter(stack, config, folder)
        experiment = experiment_of({**config, **about}, folder, start, terminal)
        known = identity("finetune", arms, config["data"])
        # Its folder's last part, which names the classifier, may be another's too.
        known["init"] = f"weights {artefact.sha256[:12]}"
        stack.enter_context(open_run(folder, known, config_yaml))
        if artefact.classes:
            terminal.notify(
                f"{init} is a classifier of {len(artefact.classes)} classes: its "
                "encoder is taken, and gets a new head"
            )
        experiment.prepare()
        (judge,) = experiment.judges
        experiment.probe(arm, judge, init)
    terminal.notify(f"{folder / 'classifiers' / arm}")
