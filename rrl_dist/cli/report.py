"""`rrl report NAME ...`: table, curves and gallery of finished runs."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rrl_dist.cli.app import run_command
from rrl_dist.cli.progress import Terminal
from rrl_dist.report.load import load_run
from rrl_dist.report.markdown import TOO_LONG, leads, tables, write_report


def main() -> None:
    """Entry point; names may stand alone: `rrl report demo` is `runs=[demo]`."""
    names = [a for a in sys.argv[1:] if "=" not in a and not a.startswith("-")]
    if names:
        others = [a for a in sys.argv[1:] if a not in names]
        sys.argv[1:] = [f"runs=[{','.join(names)}]", *others]  # before options
    run_command("report", report)


def report(config: dict[str, Any], config_yaml: str) -> None:
    """Write and print what finished runs say, one table for all."""
    storage = Path(config["storage"]).expanduser().absolute()
    folders = [storage / str(name) for name in config["runs"]]
    out = folders[0] if config["out"] is None else Path(config["out"]).absolute()
    against = config["against"]
    show(folders, out, Terminal(), None if against is None else str(against))


def show(
    folders: Sequence[Path], out: Path, terminal: Terminal, against: str | None = None
) -> None:
    """Write the report of some runs to `out`, and print its tables."""
    runs = [load_run(folder) for folder in folders]
    terminal.stage("report", done=False)
    files = write_report(folders, out, against=against)
    for title, table in tables(runs, against).items():
        if title not in TOO_LONG:
            terminal.console.print(f"\n{table.to_text()}", markup=False)
    for sentence in leads(runs):
        terminal.console.print(f"{sentence}\n", markup=False)
    for file in files:
        terminal.notify(str(file))
