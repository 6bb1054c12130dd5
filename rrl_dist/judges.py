"""What arms are judged by: on which images, by which protocol, with which head's seed.

An experiment has one protocol, or several by name; each puts a head on every arm's
encoder and may train both. With several seeds each head is trained as often, and the
attacks on it are the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrl_dist.core.errors import UserError
from rrl_dist.evaluate.entries import Entry
from rrl_dist.stages import probe_stage
from rrl_dist.tasks import NAME, Part

Config = Mapping[str, Any]

_PARTS = ("objective", "optim", "train")


@dataclass(frozen=True, eq=False)
class Judge:
    """One way to judge every arm.

    Attributes:
        part: the images.
        protocol: its name among `protocols`; None where there is one for all, or none.
        settings: the protocol's; None where classifiers are there already.
        head_seed: None: the run's own.
    """

    part: Part
    protocol: str | None = None
    settings: Config | None = None
    head_seed: int | None = None

    def entry(self, arm: str) -> Entry:
        """An arm that is judged so."""
        return Entry(arm, self.part.task, self.protocol, self.head_seed)

    @property
    def key(self) -> str:
        """Of the protocol in the configuration."""
        return "protocol" if self.protocol is None else f"protocols.{self.protocol}"

    @property
    def split(self) -> str:
        """What heads are trained on: the training split, or a part of its labels."""
        share = 1.0 if self.settings is None else float(self.settings["labels"])
        return "train" if share == 1 else f"train@{share!r}"

    def stage(self, config: Config, encoder: Path) -> dict[str, Any]:
        """Configuration of the stage that puts a head on an encoder.

        Args:
            config: the experiment's.
            encoder: its folder.
        """
        seed = config["seed"] if self.head_seed is None else self.head_seed
        own = {"data": self.part.data, "protocol": self.settings, "seed": seed}
        return {**probe_stage({**config, **own}, encoder), "split": self.split}


def judges_of(config: Config, parts: Sequence[Part]) -> tuple[Judge, ...]:
    """All that each arm of an experiment is judged by, in the order to show it.

    Args:
        config: the experiment's: `arms`, `protocol` (left out where classifiers are
            there already), and perhaps `protocols`, by name, and `head_seeds`.
        parts: of the data.

    Raises:
        UserError: a protocol or a seed is odd, or two results would have one name.
    """
    if "protocol" not in config:
        return tuple(Judge(part) for part in parts)
    protocols = _protocols(config)
    judges = [
        Judge(part, name, settings, seed)
        for part in parts
        for name, settings in protocols.items()
        for seed in _seeds(config)
    ]
    _check_names(config["arms"], judges)
    return tuple(judges)


def _protocols(config: Config) -> dict[str | None, Config]:
    """Settings by name, None for the only one."""
    single, several = config["protocol"], config.get("protocols")
    if several is None:
        check_protocol(single, "protocol")
        return {None: single}
    if not isinstance(several, Mapping) or not several:
        raise UserError(
            f"protocols={several} names none; choose some by "
            "+protocol@protocols.NAME=PROTOCOL, or set null"
        )
    found: dict[str | None, Config] = {}
    for name, settings in several.items():
        if not NAME.fullmatch(str(name)):
            raise UserError(
                f"protocols.{name}: a protocol's name is part of file names; use "
                "letters, digits, '_', '.' and '-'"
            )
        key = f"protocols.{name}"
        if not isinstance(settings, Mapping) or any(k not in settings for k in _PARTS):
            raise UserError(
                f"{key} is no protocol; choose one by +protocol@{key}=PROTOCOL"
            )
        # Views go with the data, and are given once for all protocols.
        whole = {"views": single["views"], **settings, "name": str(name)}
        check_protocol(whole, key)
        found[str(name)] = whole
    return found


def check_protocol(settings: Config, key: str) -> None:
    """Hold a protocol's own settings against what they can be.

    Args:
        settings: of a protocol.
        key: of it in the configuration, for the message.

    Raises:
        UserError: the first that cannot be.
    """
    labels = settings["labels"]
    number = isinstance(labels, int | float) and not isinstance(labels, bool)
    if not number or not 0 < labels <= 1:
        raise UserError(
            f"{key}.labels={labels}; set the share of labels in (0, 1], such as 0.01"
        )
    mode, selection = settings["batch_norm"], settings["selection"]
    if mode not in ("frozen", "trained"):
        raise UserError(f"{key}.batch_norm={mode}; choose frozen or trained")
    if mode == "trained" and settings["objective"].get("train_encoder") is False:
        raise UserError(
            f"{key}.batch_norm=trained, and the encoder is not trained: its statistics "
            f"would drift; set {key}.batch_norm=frozen"
        )
    if selection != "last":
        raise UserError(
            f"{key}.selection={selection}; set last: the last step's weights are kept, "
            "and no split is looked at on the way"
        )


def _seeds(config: Config) -> tuple[int | None, ...]:
    seeds = config.get("head_seeds")
    if seeds is None:
        return (None,)
    whole = isinstance(seeds, list | tuple) and all(type(s) is int for s in seeds)
    if not whole or not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UserError(
            f"head_seeds={seeds}; give different whole numbers, such as [0,1,2], or "
            "null"
        )
    return tuple(seeds)


def _check_names(arms: Config, judges: Sequence[Judge]) -> None:
    seen: dict[str, Entry] = {}
    for entry in (judge.entry(arm) for arm in arms for judge in judges):
        other = seen.setdefault(entry.name, entry)
        if other is not entry:
            raise UserError(
                f"arm {entry.arm} by {entry.protocol} and arm {other.arm} by "
                f"{other.protocol} would both be {entry.name}; rename a protocol"
            )
