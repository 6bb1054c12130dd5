"""Settings that another file of a group has, such as `cluster.anomaly` of `debug`."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

_SHOWN = 4  # files that have it


def elsewhere(
    key: str, choices: Mapping[str, str | None], configs: Path
) -> tuple[str, str] | None:
    """The file that was chosen and does not have a setting, and those that do.

    Args:
        key: dotted.
        choices: of a group, as "GROUP" or "GROUP@PLACE", the file that was chosen.
        configs: the folder of configurations.

    Returns:
        such as ("cluster=local", "cluster=debug"); None where no file of a group that
        was chosen from has the setting.
    """
    for group, place, chosen in _groups(choices):
        inside = key.removeprefix(f"{place}.")
        if inside == key:
            continue
        folder = configs / group.partition("@")[0]
        others = [p.stem for p in sorted(folder.glob("*.yaml")) if _has(p, inside)]
        if others:
            return f"{group}={chosen}", f"{group}={'|'.join(others[:_SHOWN])}"
    return None


def _groups(choices: Mapping[str, str | None]) -> Iterator[tuple[str, str, str]]:
    for group, chosen in choices.items():
        name, _, package = group.partition("@")
        if chosen is not None and not name.startswith("hydra"):
            yield group, package or name.replace("/", "."), chosen


def _has(file: Path, key: str) -> bool:
    node: Any = OmegaConf.to_container(OmegaConf.load(file), resolve=False)
    for part in key.split("."):
        if not isinstance(node, dict) or part not in node:
            return False
        node = node[part]
    return True
