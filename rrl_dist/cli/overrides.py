"""Settings of the command line, read before Hydra acts on them.

Hydra answers a mistake in several lines and proposes `+key`, which would be taken and
then ignored. Here each gets one line that names the nearest valid key or option.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, NoReturn

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rrl_dist.cli.arguments import jobs, options_of
from rrl_dist.cli.elsewhere import elsewhere
from rrl_dist.cli.values import check_value
from rrl_dist.core.errors import UserError

# Where keys may be added: names that a person chooses, and what has a default.
_TAKEN = (
    *(("arms", "*"), ("arms", "*", "split"), ("tasks", "*")),
    ("protocols", "*"),
    ("suite", "attacks", "*"),
)
_NEAR = 0.6  # of difflib's ratio; below it a proposal is a guess


def check_overrides(command: str, configs: Path, arguments: Sequence[str]) -> None:
    """Compose what the arguments ask for, and drop it again.

    Args:
        command: the name of its configuration in `configs`.
        configs: the folder of configurations.
        arguments: of the command line.

    Raises:
        UserError: the first mistake.
    """
    options = options_of(command, arguments)
    foreign = options.config_path or options.config_dir or options.experimental_rerun
    if options.help or options.hydra_help or options.shell_completion or foreign:
        return
    with initialize_config_dir(str(configs), version_base="1.3"):
        composer = _Composer(options.config_name or command, configs)
        found = [
            _run_of(composer.check(overrides))
            for overrides in jobs(options.overrides, sweeping=options.multirun)
        ]
    for run in found:
        if run is not None and found.count(run) > 1:
            _, name = run
            raise UserError(
                f"{found.count(run)} runs are named {name}, and each would replace the "
                f"one before; name each apart, such as 'name={name}-${{seed}}'"
            )


def _run_of(config: Mapping[str, Any]) -> tuple[str, str] | None:
    """Storage and name of the run; None where a command has none, or none yet."""
    try:
        found = OmegaConf.create(dict(config))
        return None if found.get("name") is None else (str(found.storage), found.name)
    except OmegaConfBaseException:  # told of where all references are resolved
        return None


class _Composer:
    """Holds the overrides of one command against its configuration.

    Args:
        command: the name of the configuration.
        configs: the folder of configurations.
    """

    def __init__(self, command: str, configs: Path) -> None:
        self.command, self.configs = command, configs

    def check(self, overrides: Sequence[Override]) -> dict[str, Any]:
        """What is composed, references unresolved; `UserError` for a mistake."""
        chosen = [o for o in overrides if self._chooses(o)]
        for override in chosen:
            self._check_choice(override)
        known = self._compose(chosen)
        for override in overrides:
            if override not in chosen:
                self._check_setting(override, known)
        found = self._compose(overrides)
        self._check_arms(found)
        return found

    def _chooses(self, override: Override) -> bool:
        """Whether it chooses a file of a group, or is Hydra's own."""
        group = (self.configs / override.key_or_group).is_dir()
        return override.is_hydra_override() or (
            group and not isinstance(override.value(), dict)
        )

    def _check_choice(self, override: Override) -> None:
        if override.is_hydra_override():
            return
        group = override.key_or_group
        if override.is_delete() or not isinstance(override.value(), str | list):
            options = "|".join(_files(self.configs / group))
            raise UserError(f"{override.input_line}: choose {group}={options}")

    def _compose(self, overrides: Sequence[Override]) -> dict[str, Any]:
        texts = [str(override.input_line) for override in overrides]
        try:
            config = compose(self.command, texts, return_hydra_config=True)
        except MissingConfigException as error:
            _no_option(error)
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            self._translate(error, overrides)
        plain = OmegaConf.to_container(config, resolve=False)
        assert isinstance(plain, dict)
        return {str(key): value for key, value in plain.items()}

    def _translate(self, error: Exception, overrides: Sequence[Override]) -> NoReturn:
        """Hydra's exception as one line."""
        message = str(error) or str(error.__cause__)
        if named := re.search(r"Could not override '([^']+)'", message):
            others = [o for o in overrides if o.get_key_element() != named[1]]
            fewer = len(others) < len(overrides)
            self._unknown(named[1], self._compose(others if fewer else []))
        if named := re.search(r"An item is already at '([^']+)'", message):
            raise UserError(f"+{named[1]} is there already; leave out the +") from None
        if named := re.search(r"Multiple values for ([^.]+)\.", message):
            raise UserError(f"+{named[1]} is there already; leave out the +") from None
        if named := re.search(r"delete from config\. '([^']+)' does not", message):
            self._unknown(named[1], self._compose([]))
        raise UserError(" ".join(message.split("\n\n")[0].split())) from None

    def _check_setting(self, override: Override, known: Mapping[str, Any]) -> None:
        if override.package is not None:
            key = override.get_key_element().lstrip("+~")
            self._unknown(key, known)
        for path, value in _leaves(override.key_or_group, override.value()):
            place, in_constructor = self._find(path, known, override)
            if override.is_delete():
                if not in_constructor and not _taken(path.split(".")):
                    raise UserError(f"~{path}: {path} is needed; leave it in")
            elif place is not _NEW:
                self._check_file(path, value, place, known)
                check_value(path, value, place, in_constructor=in_constructor)

    def _check_file(
        self, path: str, value: Any, place: Any, known: Mapping[str, Any]
    ) -> None:
        """Refuse a file's name where its content is set, as in objective.base=moco."""
        names = isinstance(value, str) and "${" not in value
        if not (names and isinstance(place, dict)):
            return
        for chosen in known["hydra"]["runtime"]["choices"]:
            group, _, package = chosen.partition("@")
            if path == (package or group.replace("/", ".")):
                options = _files(self.configs / group)
                told = value if value in options else "|".join(options)
                raise UserError(f"{path}={value}: choose {chosen}={told}")

    def _find(
        self, path: str, known: Mapping[str, Any], override: Override
    ) -> tuple[Any, bool]:
        """What the configuration has at `path` (`_NEW`: nothing, and it may be added),
        and whether a constructor is going to look at it."""
        node: Any = known
        in_constructor = False
        parts = path.split(".")
        for depth, part in enumerate(parts):
            if node is None or (isinstance(node, str) and "${" in node):
                return _NEW, True
            if node == "???":
                self._unset(".".join(parts[:depth]))
            in_constructor |= isinstance(node, Mapping) and "_target_" in node
            if isinstance(node, Mapping) and part in node:
                node = node[part]
            elif isinstance(node, list) and part.isdigit() and int(part) < len(node):
                node = node[int(part)]
            elif override.is_add() or override.is_force_add():
                if not in_constructor and not _taken(parts[: depth + 1]):
                    self._unknown(path, known)
                return _NEW, in_constructor
            else:
                self._unknown(path, known)
        return node, in_constructor

    def _unset(self, key: str) -> NoReturn:
        if key == "arms":
            options = ", ".join(_files(self.configs / "experiment"))
            raise UserError(f"arms come with an experiment; choose one of {options}")
        raise UserError(f"{key} is not set; give {key}=VALUE")

    def _unknown(self, key: str, known: Mapping[str, Any]) -> NoReturn:
        choices = known["hydra"]["runtime"]["choices"]
        if others := elsewhere(key, choices, self.configs):
            chosen, having = others
            told = f"there is no setting {key} with {chosen}; {having} has it"
            raise UserError(told) from None
        keys = [*_paths(known), *choices]
        near = nearest(key, [k for k in keys if not k.startswith("hydra")])
        told = f"rrl {self.command} --help lists all"
        if near:
            told = f"the nearest is {' or '.join(near)}"
        raise UserError(f"there is no setting {key}; {told}") from None

    def _check_arms(self, found: Mapping[str, Any]) -> None:
        """An arm that was added needs all that the others have."""
        arms = found.get("arms")
        for name, arm in arms.items() if isinstance(arms, dict) else ():
            for key in ("objective", "views", "optim", "train", "teacher"):
                if not isinstance(arm, dict) or key not in arm:
                    raise UserError(f"arms.{name}.{key} is not set; every arm needs it")


class _New:
    """The place of a key that may be added."""


_NEW = _New()


def nearest(wanted: str, known: Sequence[str]) -> list[str]:
    """Up to three of `known` that are equally near to `wanted`, if any is near.

    A key may be given without what stands before it: `train.epoch` is as near to
    `protocol.train.epochs` as to `train.epochs`.
    """
    length = wanted.count(".") + 1

    def closeness(key: str) -> tuple[float, bool]:
        tail = ".".join(key.split(".")[-length:])
        return SequenceMatcher(None, wanted, tail).ratio(), key == tail

    scores = {key: closeness(key) for key in known}
    best = max(scores.values(), default=(0.0, False))
    if best[0] < _NEAR:
        return []
    return [key for key, score in scores.items() if score == best][:3]


def _no_option(error: MissingConfigException) -> NoReturn:
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    options = list(error.options or ())
    near = nearest(option, options)
    if near:
        told = f"the nearest is {' or '.join(near)}"
    elif options:
        told = f"choose {'|'.join(sorted(options))}"
    else:
        raise UserError(str(error).split("\n", 1)[0]) from None
    raise UserError(f"there is no {group}={option}; {told}") from None


def _taken(parts: Sequence[str]) -> bool:
    """Whether this key may be added or taken away."""
    return any(
        len(parts) == len(taken)
        and all(t in ("*", part) for t, part in zip(taken, parts, strict=True))
        for taken in _TAKEN
    )


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    """`evaluate={limit: 3}` is `evaluate.limit=3`."""
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}", inner)
    else:
        yield key, value


def _paths(node: Any, before: str = "") -> Iterator[str]:
    """Every key of a configuration, dotted."""
    for key, value in node.items() if isinstance(node, dict) else ():
        if not str(key).startswith("_"):
            yield f"{before}{key}"
            yield from _paths(value, f"{before}{key}.")


def _files(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.yaml"))
