"""`rrl run experiment=NAME`: every stage of an experiment."""

import sys
from contextlib import ExitStack
from typing import Any

from hydra.core.hydra_config import HydraConfig

from rrl_dist.cli.app import (
    absolute_folders,
    identity,
    run_command,
    run_folder,
    starter,
)
from rrl_dist.cli.plan import plan
from rrl_dist.cli.progress import Terminal
from rrl_dist.cli.report import show
from rrl_dist.core.run_directory import open_run
from rrl_dist.evaluate.settings import check_settings
from rrl_dist.overfit import experiment_of, overfitting
from rrl_dist.training.cluster import check


def main() -> None:
    """Entry point; `--plan` is short for `plan=true`."""
    sys.argv = ["plan=true" if a == "--plan" else a for a in sys.argv]
    run_command("run", run)


def run(config: dict[str, Any], config_yaml: str) -> None:
    """Run what is missing of an experiment, and print its table."""
    terminal = Terminal()
    config = absolute_folders(config)
    check(config["cluster"])
    check_settings(config["evaluate"])
    config = overfitting(config)
    folder = run_folder(config)
    if config["plan"]:
        terminal.console.print(plan(config))
        return
    with ExitStack() as stack:
        start = starter(stack, config, folder)
        experiment = experiment_of(config, folder, start, terminal)
        about = {
            **identity("run", config["arms"], config["data"]),
            "experiment": HydraConfig.get().runtime.choices.get("experiment"),
        }
        stack.enter_context(open_run(folder, about, config_yaml))
        experiment.run()
    if config["cluster"].get("overfit") is None:
        show([folder], folder, terminal)
