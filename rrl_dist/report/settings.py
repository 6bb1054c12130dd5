"""What sets one run apart from another: its configuration, held against another's."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from rrl_dist.core.errors import UserError

# Names, folders and machines say nothing about what was trained.
_APART = (
    *("name", "seed", "storage", "betons", "plan", "cluster"),
    *("data.root", "data.download", "evaluate.unit_atoms", "evaluate.gallery"),
    *("evaluate.verdict", "evaluate.verdict_images"),
)


def read_settings(folder: Path, results: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """A run's settings by dotted name, without its seed and what has no effect.

    Args:
        folder: of the run.
        results: its `results.json`.

    Returns:
        None where no `config.yaml` is there, or where it is of a later attempt than the
        results, with another seed.

    Raises:
        UserError: the file is damaged.
    """
    file = folder / "config.yaml"
    if not file.is_file():
        return None
    try:
        config = OmegaConf.to_container(OmegaConf.load(file))
    except (OmegaConfBaseException, YAMLError, UnicodeDecodeError) as error:
        reason = str(error).split("\n", 1)[0]
        raise UserError(
            f"{file} cannot be read ({reason}); start the run again to write it"
        ) from None
    if not isinstance(config, Mapping) or config.get("seed") != results["seed"]:
        return None
    return {key: value for key, value in _flat(config) if not _apart(key)}


def _apart(key: str) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in _APART)


def _flat(node: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping) and node:
        for key, value in node.items():
            yield from _flat(value, f"{before}{key}.")
    else:
        yield before.rstrip("."), node


def first_difference(settings: Sequence[Mapping[str, Any] | None]) -> str | None:
    """What runs differ in, in a few words; None if only their seeds do."""
    one = settings[0]
    for other in settings:
        if one is None or other is None:
            return "a config.yaml that is missing"
        for key in sorted(one.keys() | other.keys()):
            if key not in one or key not in other or one[key] != other[key]:
                return key
    return None
