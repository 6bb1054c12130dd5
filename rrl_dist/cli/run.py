"""`rrl run experiment=NAME`: every stage of an experiment."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rrl_dist.cli.app import absolute_folders, run_command
from rrl_dist.cli.plan import plan
from rrl_dist.cli.progress import Terminal
from rrl_dist.core.run_directory import describe_run, locked
from rrl_dist.experiment import Config, Experiment
from rrl_dist.report.load import load_run
from rrl_dist.report.markdown import write_report
from rrl_dist.report.tables import lead, robustness_table
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
        terminal.stage("report", done=False)
        files = write_report([folder], folder)
    finished = load_run(folder)
    terminal.console.print()
    terminal.console.print(robustness_table([finished]).to_text(), markup=False)
    terminal.console.print(f"\n{lead(finished)}\n", markup=False)
    for file in files:
        terminal.notify(str(file))
