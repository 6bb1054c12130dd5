"""`rrl pretrain objective=NAME name=RUN`: one training stage."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rrl_dist.cli.app import absolute_folders, run_command
from rrl_dist.cli.progress import Terminal
from rrl_dist.core.run_directory import describe_run, locked
from rrl_dist.experiment import Config, Experiment
from rrl_dist.training.cluster import session

ARM = "encoder"


def main() -> None:
    """Entry point."""
    run_command("pretrain", pretrain)


def pretrain(config: dict[str, Any], config_yaml: str) -> None:
    """Train an encoder, an experiment's arm on its own."""
    terminal = Terminal()
    config = absolute_folders(config)
    teacher = None if config["teacher"] is None else Path(config["teacher"]).absolute()
    keys = ("objective", "views", "optim", "train", "split")
    arm = {**{key: config.pop(key) for key in keys}, "teacher": None}
    folder = Path(config["storage"]) / str(config["name"])
    with ExitStack() as stack:

        def start() -> Config:
            return stack.enter_context(session(config["cluster"]))

        experiment = Experiment({**config, "arms": {ARM: arm}}, folder, start, terminal)
        stack.enter_context(locked(folder))
        describe_run(folder, config_yaml)
        experiment.pretrain(ARM, experiment.prepare(), teacher)
    terminal.notify(f"{folder / 'models' / ARM}")
