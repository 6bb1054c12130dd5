"""`rrl doctor`: what is wrong on this machine or a cluster, and how to mend it."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rrl_dist.cli.app import absolute_folders, run_command
from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import write_json
from rrl_dist.doctor.finding import FAIL, OK, WARN, Asked, Row
from rrl_dist.doctor.nodes import HERE, ask_here, ask_nodes
from rrl_dist.training.cluster import session

_STYLES = {OK: "green", WARN: "yellow", FAIL: "bold red"}
_WIDE = 10_000  # columns of a file, where no line is to be broken


def main() -> None:
    """Entry point; `--cluster` is `cluster=auto`."""
    words = sys.argv[1:]
    if "--cluster" in words:
        others = [word for word in words if word != "--cluster"]
        sys.argv[1:] = ["cluster=auto", *others]
    run_command("doctor", doctor)


def doctor(config: dict[str, Any], config_yaml: str) -> None:
    """Print one table of all that was found; status 1 where anything failed."""
    config = absolute_folders(config)
    for name in ("disk_gb", "shared_memory_gb", "patience"):
        if config[name] < 0:
            raise UserError(f"{name}={config[name]}; set 0 or more")
    found, nodes = _ask(config)
    _print(found, nodes)
    if config["json"] is not None:
        write_json(Path(config["json"]), [_plain(row) for row in found])
    if any(row.finding.state == FAIL for row in found):
        sys.exit(1)


def _ask(config: dict[str, Any]) -> tuple[list[Row], list[str]]:
    cluster = config["cluster"]
    asked = Asked(
        storage=config["storage"],
        betons=config["betons"],
        data=config["data"],
        disk_gb=config["disk_gb"],
        shared_memory_gb=config["shared_memory_gb"],
        patience=config["patience"],
        betons_shared=cluster.get("betons", "shared") == "shared",
    )
    if cluster["kind"] == "debug":
        return ask_here(asked), [HERE]
    with ExitStack() as stack:
        try:
            stack.enter_context(session({**cluster, "gpu": False}))
        except RuntimeError as error:  # Ray's, of a cluster with other versions
            told = " ".join(str(error).split())
            raise UserError(
                f"Ray could not be joined ({told}); use the Ray and Python of its nodes"
            ) from None
        return ask_nodes(asked)


def _print(found: Sequence[Row], nodes: Sequence[str]) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDE)
    table = Table("state", "check", "where", "found", "mend", box=SIMPLE_HEAD)
    for row in found:
        state = Text(row.finding.state, style=_STYLES[row.finding.state])
        words = (row.check, _where(row, nodes), row.finding.found, row.finding.mend)
        table.add_row(state, *map(Text, words))
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        print(line.rstrip())
    print(_summary(found, nodes))


def _where(row: Row, nodes: Sequence[str]) -> str:
    if len(nodes) > 1 and set(row.nodes) == set(nodes):
        return f"all {len(nodes)} nodes"
    return ", ".join(row.nodes)


def _summary(found: Sequence[Row], nodes: Sequence[str]) -> str:
    states = [row.finding.state for row in found]
    where = nodes[0] if len(nodes) == 1 else f"{len(nodes)} nodes"
    return f"{where}: {states.count(FAIL)} to mend, {states.count(WARN)} to consider"


def _plain(row: Row) -> dict[str, Any]:
    return {"check": row.check, "nodes": list(row.nodes), **asdict(row.finding)}
