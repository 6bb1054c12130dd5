"""`rrl run experiment=NAME`: every stage of an experiment."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rrl_dist.cli.app import absolute_folders, run_command
from rrl_dist.cli.plan import plan
from rrl_dist.cli.progress import Terminal
from rrl_dist.cli.report import show
from rrl_dist.core.run_directory import describe_run, locked
from rrl_dist.experiment import Config, Experiment
from rrl_dist.training.cluster import session


def main() -> None:
    """Entry point; `--plan` is short for `plan=true`."""
    sys.argv = ["plan=true" if a == "--plan" else a for a in sys.argv]
    run_command("run", run)


def run(config: dict[str, Any], config_yaml: str) -> None:
    """Run what is missing of an experiment, and print its table."""
    terminal = Terminal()
    config = absolute_folders(config)
    folder = Path(config["storage"]) / str(config["name"])
    if config["plan"]:
        terminal.console.print(plan(config))
        return
    with ExitStack() as stack:

        def start() -> Config:
            return stack.enter_context(session(config["cluster"]))

        experiment = Experiment(config, folder, start, terminal)
        stack.enter_context(locked(folder))
        describe_run(folder, config_yaml)
        experiment.run()
    show([folder], folder, terminal)
