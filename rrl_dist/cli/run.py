"""`rrl run experiment=NAME`: every stage of an experiment."""

import sys
from pathlib import Path
from typing import Any

from rrl_dist.cli.app import run_command
from rrl_dist.cli.progress import Terminal
from rrl_dist.core.run_directory import describe_run, locked


def main() -> None:
    """Entry point; `--plan` is short for `plan=true`."""
    sys.argv = ["plan=true" if a == "--plan" else a for a in sys.argv]
    run_command("run", run)


def run(config: dict[str, Any], config_yaml: str) -> None:
    """Run what is missing of an experiment, and print its table."""
    from rrl_dist.experiment import Experiment
    from rrl_dist.report.load import load_run
    from rrl_dist.report.markdown import write_report
    from rrl_dist.report.tables import lead, robustness_table
    from rrl_dist.training.cluster import session

    terminal = Terminal()
    # Ray's workers have other working directories.
    for key in ("storage", "betons"):
        config[key] = str(Path(config[key]).absolute())
    folder = Path(config["storage"]) / str(config["name"])
    with locked(folder):
        describe_run(folder, config_yaml)
        with session(config["cluster"]) as cluster:
            Experiment(config, folder, cluster, terminal).run()
        terminal.stage("report", done=False)
        files = write_report([folder], folder)
    finished = load_run(folder)
    terminal.console.print()
    terminal.console.print(robustness_table([finished]).to_text(), markup=False)
    terminal.console.print(f"\n{lead(finished)}\n", markup=False)
    for file in files:
        terminal.notify(str(file))
