"""The command that a job carries out, looked at before it is sent."""

import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rrl_dist.core.errors import UserError

# Settings that name folders, and what to set where they lie in the job's own.
_FOLDERS = {
    "storage": "/shared/runs",
    "betons": "/shared/betons",
    "data.root": "/shared/DATA",
}


def prepared(words: Sequence[str], *, uploaded: bool) -> tuple[list[str], str]:
    """The command as the cluster is to run it, and the name of its run.

    It is composed here first, by the command itself, so that a mistake is told before
    anything is sent.

    Args:
        words: after `rrl`, such as ["run", "experiment=demo"].
        uploaded: whether it runs in a folder of its own, which goes with the job.

    Raises:
        UserError: a mistake in it, or see `fitted`.
    """
    settings = _composed(words)
    if settings is None:
        return list(words), words[0]
    name = str(_value(settings, "name") or words[0])
    return fitted(words, settings, uploaded=uploaded), name


def fitted(words: Sequence[str], settings: DictConfig, *, uploaded: bool) -> list[str]:
    """The command with `cluster=auto` where it has a cluster.

    Args:
        words: see `prepared`.
        settings: what they are composed to.
        uploaded: see `prepared`.

    Raises:
        UserError: it would not use the cluster, or leave results in a folder that goes
            with the job.
    """
    chosen = [word for word in words if word.lstrip("+").startswith("cluster=")]
    if chosen and chosen != ["cluster=auto"]:
        raise UserError(
            f"{chosen[0]} would keep to one machine of the cluster; leave it out"
        )
    if uploaded:
        _check_folders(settings)
    added = ["cluster=auto"] if "cluster" in settings and not chosen else []
    # Options come after all settings.
    first = next((i for i, w in enumerate(words) if w.startswith("-")), len(words))
    return [*words[:first], *added, *words[first:]]


def entry(python: str, words: Sequence[str]) -> str:
    """A line for the shell that Ray starts on the cluster."""
    return shlex.join([python, "-m", "rrl_dist.cli.main", *words])


def _composed(words: Sequence[str]) -> DictConfig | None:
    """The command's configuration, unresolved; None where it has none."""
    if words[:2] == ["tune", "show"] or "--help" in words or "--cfg" in words:
        return None
    command = [sys.executable, "-m", "rrl_dist.cli.main", *words, "--cfg=job"]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        told = ended.stderr.strip().splitlines() or ["it cannot be composed"]
        raise UserError(told[-1])
    found = OmegaConf.create(ended.stdout)
    return found if isinstance(found, DictConfig) else None


def _check_folders(settings: DictConfig) -> None:
    for key, example in _FOLDERS.items():
        if key == "betons" and _value(settings, "loader") == "memory":
            continue
        value = _value(settings, key)
        if value is not None and not _elsewhere(str(value)):
            raise UserError(
                f"{key}={value} would lie in the job's own folder, which goes with it; "
                f"set a folder that all nodes share, such as {key}={example}"
            )


def _elsewhere(value: str) -> bool:
    return value.startswith("~") or "://" in value or Path(value).is_absolute()


def _value(settings: DictConfig, key: str) -> Any:
    """None where it is not there, not set, or cannot be resolved here."""
    try:
        found = OmegaConf.select(settings, key, default=None)
    except OmegaConfBaseException:
        return None
    return None if isinstance(found, Mapping) else found
