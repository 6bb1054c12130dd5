"""`rrl report NAME ...`: table, curves and gallery of finished runs."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rrl_dist.cli.app import run_command
from rrl_dist.cli.progress import Terminal
from rrl_dist.report.load import load_run
from rrl_dist.report.markdown import write_report
from rrl_dist.report.tables import lead, robustness_table


def main() -> None:
    """Entry point; names may stand alone: `rrl report demo` is `runs=[demo]`."""
    names = [a for a in sys.argv[1:] if "=" not in a and not a.startswith("-")]
    if names:
        others = [a for a in sys.argv[1:] if a not in names]
        sys.argv[1:] = [*others, f"runs=[{','.join(names)}]"]
    run_command("report", report)


def report(config: dict[str, Any], config_yaml: str) -> None:
    """Write and print what finished runs say, one table for all."""
    storage = Path(config["storage"]).expanduser().absolute()
    folders = [storage / str(name) for name in config["runs"]]
    out = folders[0] if config["out"] is None else Path(config["out"]).absolute()
    show(folders, out, Terminal())


def show(folders: Sequence[Path], out: Path, terminal: Terminal) -> None:
    """Write the report of some runs to `out`, and print its table."""
    runs = [load_run(folder) for folder in folders]
    terminal.stage("report", done=False)
    files = write_report(folders, out)
    terminal.console.print()
    terminal.console.print(robustness_table(runs).to_text(), markup=False)
    for run in runs:
        terminal.console.print(f"\n{lead(run)}\n", markup=False)
    for file in files:
        terminal.notify(str(file))
