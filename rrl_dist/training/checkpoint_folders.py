"""Folders that checkpoints are copied to: the same one for every worker."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import writing
from rrl_dist.training.nodes import alive_nodes, node_name, storage_answers


def absolute_copies(config: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a configuration, in which each `checkpoints.copy` that is a folder does
    not depend on where a process was started."""
    found = dict(config)
    for key, value in config.items():
        if isinstance(value, dict):
            found[key] = absolute_copies(value)
    folder = _folder(found)
    if folder is not None:
        absolute = str(folder.expanduser().absolute())
        found["checkpoints"] = {**found["checkpoints"], "copy": absolute}
    return found


def copy_folders(config: Mapping[str, Any]) -> set[Path]:
    """The folders of all stages of a configuration."""
    inside = [copy_folders(v) for v in config.values() if isinstance(v, dict)]
    own = _folder(config)
    return set[Path]().union(*inside, () if own is None else (own,))


def _folder(train: Mapping[str, Any]) -> Path | None:
    own = train.get("checkpoints")
    copy = own.get("copy") if isinstance(own, dict) else None
    return None if copy is None or "://" in str(copy) else Path(str(copy))


def check_copies(config: Mapping[str, Any]) -> None:
    """Let every node of the cluster read and write the folders of a configuration.

    Raises:
        UserError: naming the node and what it cannot do.
    """
    for folder in sorted(copy_folders(config)):
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        for node, wrong in storage_answers(folder, alive_nodes()):
            if isinstance(wrong, UserError):
                raise wrong
            if wrong:
                raise UserError(
                    f"train.checkpoints.copy={folder}: node {node_name(node)} {wrong}; "
                    "set it to a folder that all nodes share, or to an object store"
                )
