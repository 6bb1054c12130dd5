"""The words of a command line: options, settings, and the jobs of a `--multirun`."""

import argparse
from collections.abc import Iterator, Sequence
from itertools import product

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import OverrideParseException

from rrl_dist.core.errors import UserError


def multirun_last(arguments: Sequence[str]) -> list[str]:
    """The same words in an order that Hydra reads: it wants settings side by side."""
    flags = [word for word in arguments if word in ("-m", "--multirun")]
    return [word for word in arguments if word not in flags] + flags


def options_of(command: str, arguments: Sequence[str]) -> argparse.Namespace:
    """Options apart from settings, which are its `overrides`.

    Raises:
        UserError: an option that is none, or settings behind one.
    """
    parser = get_args_parser()
    parser.exit_on_error = False
    try:
        options, unknown = parser.parse_known_args(arguments)
    except argparse.ArgumentError as error:
        raise UserError(f"{error}; see rrl {command} --help") from None
    if unknown:
        if "=" in unknown[0]:
            raise UserError(f"{unknown[0]} comes after an option; write settings first")
        raise UserError(f"{unknown[0]} is no option; see rrl {command} --help")
    return options


def jobs(texts: Sequence[str], *, sweeping: bool) -> Iterator[list[Override]]:
    """The overrides of each job of a `--multirun`; of one job without it.

    Raises:
        UserError: a setting cannot be read, or has several values without `--multirun`.
    """
    choices: list[list[str]] = []
    for override, text in zip(map(parsed, texts), texts, strict=True):
        if not override.is_sweep_override():
            choices.append([text])
        elif sweeping and override.is_discrete_sweep():
            key, values = override.get_key_element(), override.sweep_string_iterator()
            choices.append([f"{key}={value}" for value in values])
        else:
            key, _, value = text.partition("=")
            raise UserError(
                f"{text} gives several values; add --multirun for a run with each, or "
                f"write {key}=[{value}] for a list"
            )
    for job in product(*choices):
        yield [parsed(text) for text in job]


def parsed(text: str) -> Override:
    """One setting.

    Raises:
        UserError: it cannot be read.
    """
    key, equals, value = text.partition("=")
    if equals and not key:
        raise UserError(f"{text} has no key; settings are given as key=value")
    try:
        (override,) = OverridesParser.create().parse_overrides([text])
    except OverrideParseException:
        if not equals:
            raise UserError(f"{text} has no value; give {text}=VALUE") from None
        if value.startswith("~"):
            raise UserError(
                f"{text}: ~ is not expanded here; write the folder out, or "
                f'{key}="$HOME{value[1:]}"'
            ) from None
        raise UserError(
            f"{text}: this value needs quotes of its own: '{key}=\"{value}\"'"
        ) from None
    return override
