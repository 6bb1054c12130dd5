"""Classifiers that attacks are made on for another to be shown the images."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from rrl_dist.core.errors import UserError
from rrl_dist.evaluate.corruption_files import corruption_identity
from rrl_dist.evaluate.images import Images
from rrl_dist.evaluate.rehearsal import rehearse_subject
from rrl_dist.evaluate.source import Source
from rrl_dist.evaluate.subject import Models, load_subject

ARMS = "arms"  # suite.surrogates: the classifiers of all arms of a run
KEYS = ("model", "weights", "mean", "std")
PERHAPS = ("corruptions", "vulnerability")  # null in a suite is the same as absent


def named_surrogates(
    suite: Mapping[str, Any], arms: Mapping[str, Path]
) -> Mapping[str, Any]:
    """What `suite.surrogates` names, by name; nothing of a suite that has no such key.

    Args:
        suite: its configuration.
        arms: folders of the classifiers that "arms" stands for; empty where there are
            none.

    Raises:
        UserError: nothing is named, or what is no name.
    """
    if "surrogates" not in suite:
        return {}
    named = suite["surrogates"]
    if named == ARMS and arms:
        return arms
    if not isinstance(named, Mapping) or not named:
        both = "arms, or " if arms else ""
        raise UserError(
            f"suite.surrogates={named}: images are to be made on other classifiers; "
            f"set {both}{{NAME:MODEL}}, MODEL as in rrl evaluate model=MODEL"
        )
    return named


def checked_surrogates(
    named: Mapping[str, Any], images: Images, notify: Callable[[str], None]
) -> dict[str, Source]:
    """Where surrogates come from, each loaded once and asked about some images.

    Args:
        named: by name what `rrl evaluate model=` takes, or that as `model` beside its
            `weights`, `mean` and `std`.
        images: a few of the data.
        notify: told what a person should know, line by line.

    Raises:
        UserError: one cannot be made, or is not for these images and classes.
    """
    found = {}
    for name, what in named.items():
        source = replace(_source(str(name), what), classes=len(images.classes))
        subject = load_subject(source)
        if subject.classes not in (None, images.classes):
            raise UserError(
                f"suite.surrogates.{name}: {source.model} tells other classes apart "
                f"than {images.name}; name one that was trained for these"
            )
        for line in rehearse_subject(source, subject, images):
            notify(line)
        found[str(name)] = replace(source, sha256=subject.sha256)
    return found


def _source(name: str, what: Any) -> Source:
    """As it is for any worker, wherever that is started."""
    given = dict(what) if isinstance(what, Mapping) else {"model": str(what)}
    unknown = [key for key in given if key not in KEYS]
    if unknown or "model" not in given:
        raise UserError(
            f"suite.surrogates.{name}={dict(given)}; give model=, and perhaps "
            f"{', '.join(KEYS[1:])}"
        )
    return Source(
        str(given["model"]),
        weights=None if given.get("weights") is None else str(given["weights"]),
        mean=_numbers(given.get("mean")),
        std=_numbers(given.get("std")),
        folder=str(Path.cwd()),
    ).absolute()


def _numbers(values: Any) -> tuple[float, ...] | None:
    return None if values is None else tuple(values)


def load_models(source: Source, surrogates: Mapping[str, Source]) -> Models:
    """What an evaluation attacks, on the CPU.

    Raises:
        UserError: one cannot be made, or is another than it was.
    """
    return Models(
        load_subject(source).module,
        {name: load_subject(other).module for name, other in surrogates.items()},
    )


def suite_identity(
    suite: Mapping[str, Any], surrogates: Mapping[str, Source]
) -> dict[str, Any]:
    """What rows depend on: the suite, with surrogates and files of corruptions as what
    they are, not where."""
    asked = {k: v for k, v in suite.items() if v is not None or k not in PERHAPS}
    if "corruptions" in asked:
        asked["corruptions"] = corruption_identity(asked["corruptions"])
    if "surrogates" not in suite:
        return asked
    found = {name: source.sha256 for name, source in surrogates.items()}
    return {**asked, "surrogates": found}
