"""A sweep that is named alone goes on as what it was begun as, whatever YAML files say
since."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from rrl_dist.cli.app import absolute_folders
from rrl_dist.core.errors import UserError
from rrl_dist.tune.search import LATER, NOT_FROZEN, STUDY
from rrl_dist.tune.stored import CHOICES
from rrl_dist.tune.study import read_study

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Begun:
    """What a sweep was begun as.

    Attributes:
        config: plain, with what may be changed as it was last, or as it is given now.
        variants: see `Space`.
        choices: files by group, see `write_experiment`.
    """

    config: dict[str, Any]
    variants: dict[str, Any]
    choices: dict[str, str]


def begun_as(config: Config, overrides: Sequence[str], folder: Path) -> Begun | None:
    """A sweep's own configuration, if that is what a command asks for.

    Args:
        config: as composed now.
        overrides: of the command line.
        folder: of the sweep.

    Returns:
        None where nothing was begun, or where the command says what to search: that is
        held against the sweep's own configuration when its study is opened.
    """
    keys = [_key(override) for override in overrides]
    file = folder / "config.yaml"
    if not file.is_file() or not all(map(_free, keys)):
        return None
    last = OmegaConf.load(file)
    for key in keys:
        OmegaConf.update(last, key, _value(config, key), merge=False, force_add=True)
    found: Any = OmegaConf.to_container(last)
    try:
        frozen, _ = read_study(
            found["sweep"]["study"] or folder / STUDY, str(config["name"])
        )
    except UserError:  # it was not begun; what is wrong is told when it is opened
        return None
    if CHOICES not in frozen:  # begun by a version that did not keep them
        return None
    own = {k: v for k, v in frozen.items() if k not in ("variants", CHOICES)}
    data = {**own["data"], "root": found["data"]["root"]}
    search = {**own["sweep"], **{key: found["sweep"][key] for key in LATER}}
    whole = {**found, **own, "data": data, "sweep": search}
    return Begun(absolute_folders(whole), frozen["variants"], frozen[CHOICES])


def _key(override: str) -> str:
    """Dotted, where a command's override acts."""
    (parsed,) = OverridesParser.create().parse_overrides([override])
    return parsed.package or parsed.key_or_group.replace("/", ".")


def _free(key: str) -> bool:
    """Whether it may change while a sweep goes on."""
    first, _, second = key.partition(".")
    if first == "sweep":
        return second.split(".")[0] in LATER
    return first in NOT_FROZEN - {"preset"} or key == "data.root"


def _value(config: Config, key: str) -> Any:
    node: Any = config
    for part in key.split("."):
        node = node[part]
    return node
