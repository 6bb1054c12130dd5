"""`rrl pretrain objective=NAME name=RUN`: one training stage."""

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
from rrl_dist.experiment import Experiment
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
    teacher = config["teacher"]
    if teacher is not None:
        teacher = Path(teacher).expanduser().absolute()
        config["teacher"] = str(teacher)
    keys = ("objective", "views", "optim", "train", "split")
    arm = {**{key: config.pop(key) for key in keys}, "teacher": None}
    folder = run_folder(config)
    with ExitStack() as stack:
        start = starter(stack, config["cluster"], folder)
        experiment = Experiment({**config, "arms": {ARM: arm}}, folder, start, terminal)
        about = identity("pretrain", {ARM: arm}, config["data"])
        stack.enter_context(open_run(folder, about, config_yaml))
        experiment.pretrain(ARM, experiment.prepare(), teacher)
    terminal.notify(f"{folder / 'models' / ARM}")
