"""`rrl prepare data=NAME`: write a data set as `.beton` files."""

from pathlib import Path
from typing import Any

from rrl_dist.cli.app import absolute_folders, run_command
from rrl_dist.cli.progress import Terminal
from rrl_dist.data.datasets import DataSource
from rrl_dist.data.prepare import prepare_beton
from rrl_dist.training.build import build


def main() -> None:
    """Entry point."""
    run_command("prepare", prepare)


def prepare(config: dict[str, Any], config_yaml: str) -> None:
    """Write the files that are missing; each is read back and compared."""
    terminal = Terminal()
    config = absolute_folders(config)
    source: DataSource = build(config["data"])
    source.check()
    for name in config["splits"]:
        images = source.split(name)
        terminal.stage(f"{images.name}: {len(images)} images", done=False)
        path = prepare_beton(
            Path(config["betons"]),
            images,
            workers=int(config["threads"]),
            progress=terminal.counting("written and read back"),
            notify=terminal.notify,
        )
        terminal.notify(str(path))
