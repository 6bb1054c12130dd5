"""`rrl prepare data=NAME`: write a data set as `.beton` files."""

from collections.abc import Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

from rrl_dist.cli.app import absolute_folders, run_command
from rrl_dist.cli.progress import Terminal
from rrl_dist.data.datasets import DataSource
from rrl_dist.data.prepare import prepare_beton
from rrl_dist.training.build import build
from rrl_dist.training.cluster import check, session
from rrl_dist.training.encoding import encoder_on
from rrl_dist.training.node_data import check_data


def main() -> None:
    """Entry point."""
    run_command("prepare", prepare)


def prepare(config: dict[str, Any], config_yaml: str) -> None:
    """Write the files that are missing; each is read back and compared. On a cluster,
    each node is then asked for them."""
    terminal = Terminal()
    config = absolute_folders(config)
    cluster = config["cluster"]
    check(cluster)
    source: DataSource = build(config["data"])
    source.check()
    paths: list[Path] = []
    with ExitStack() as stack:

        @cache
        def start() -> Mapping[str, Any]:
            return stack.enter_context(session(cluster))

        for name in config["splits"]:
            images = source.split(name)
            terminal.stage(f"{images.name}: {len(images)} images", done=False)
            path = prepare_beton(
                Path(config["betons"]),
                images,
                workers=int(config["threads"]),
                progress=terminal.counting("written and read back"),
                notify=terminal.notify,
                encoder=None if cluster["kind"] == "debug" else encoder_on(start),
            )
            terminal.notify(str(path))
            paths.append(path)
        if cluster["kind"] == "auto":
            check_data(start(), [], paths, terminal.notify, repair=True)
