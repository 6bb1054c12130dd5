"""`rrl tune show NAME`: a sweep's trials, while it runs and after."""

import sys
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from rrl_dist.cli.progress import Terminal
from rrl_dist.core.errors import UserError
from rrl_dist.tune.aims import Aims, parse_aims
from rrl_dist.tune.findings import Findings, probe_text
from rrl_dist.tune.page import write_page
from rrl_dist.tune.search import STUDY
from rrl_dist.tune.setting import flat
from rrl_dist.tune.space import Space, parse_space
from rrl_dist.tune.study import read_study
from rrl_dist.tune.table import answer, minutes, trials_table

_KEYS = ("name", "storage", "sweep.study")
_MOST = 10  # rows on a terminal
_USAGE = """\
rrl tune show NAME: what a sweep has found, while it runs and after

  storage=DIR          where its folder is; runs, if it is not given
  sweep.study=ADDRESS  its database; what config.yaml or study.db of its folder say

Nothing is written but sweep.md, trials.json and pictures in answer/ of its folder."""


def show(arguments: list[str]) -> None:
    """Tell of a sweep; the user's mistakes end it with one line and status 2."""
    if {"-h", "--help"} & set(arguments):
        print(_USAGE)
        return
    try:
        _show(_given(arguments), Terminal())
    except UserError as error:
        print(f"rrl tune show: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _given(arguments: list[str]) -> dict[str, str]:
    """Settings by their keys.

    Raises:
        UserError: a word is none, or a setting comes twice or without a value.
    """
    found: dict[str, str] = {}
    for word in arguments:
        if word.startswith("-"):
            raise UserError(f"{word} is no option; see rrl tune show --help")
        key, equals, value = word.partition("=")
        key, value = (key, value) if equals else ("name", word)
        if key not in _KEYS:
            near = get_close_matches(key, _KEYS, n=1, cutoff=0.0)[0]
            raise UserError(f"there is no setting {key}; the nearest is {near}")
        if not value:
            raise UserError(f"{word} has no value; give {key}=VALUE")
        if key in found:
            raise UserError(f"{key} is given as {found[key]} and {value}; give it once")
        found[key] = value
    return found


def _show(given: Mapping[str, str], terminal: Terminal) -> None:
    storage = Path(given.get("storage", "runs")).expanduser().absolute()
    name = given.get("name")
    if name is None:
        known = "|".join(_sweeps(storage))
        raise UserError(f"name a sweep: rrl tune show {known or 'NAME'}")
    folder = storage / name
    settings = _settings(folder)
    address = given.get("sweep.study") or settings.get("study")
    if address is None and not (folder / STUDY).is_file():
        raise _unknown(name, folder, storage)
    frozen, records = read_study(address or folder / STUDY, name)
    findings = Findings(name, tuple(records), *_searched(frozen))
    _tell(findings, settings.get("trials"), terminal)
    if folder.is_dir():
        for file in write_page(folder / "answer", findings):
            terminal.notify(str(file))


def _settings(folder: Path) -> Mapping[str, Any]:
    """Of the search, as it was last started; empty if that cannot be read."""
    file = folder / "config.yaml"
    try:
        config = OmegaConf.to_container(OmegaConf.load(file))
    except (OSError, ValueError, YAMLError, OmegaConfBaseException):
        return {}
    found = config.get("sweep") if isinstance(config, dict) else None
    return found if isinstance(found, dict) else {}


def _sweeps(storage: Path) -> list[str]:
    """Names of those with a folder here."""
    return sorted(file.parent.name for file in storage.glob(f"*/{STUDY}"))


def _unknown(name: str, folder: Path, storage: Path) -> UserError:
    known = _sweeps(storage)
    near = get_close_matches(name, known, n=3, cutoff=0.0)
    told = f"the nearest is {' or '.join(near)}" if near else "check storage="
    if folder.is_dir():
        return UserError(
            f"{folder} has no {STUDY}: it is no sweep, or its trials are elsewhere; "
            f"give sweep.study=ADDRESS, or another name ({told})"
        )
    return UserError(f"there is no sweep {name} in {storage}; {told}")


def _searched(frozen: Mapping[str, Any]) -> tuple[Aims, Space]:
    """What a sweep wants and searches, of the configuration that is kept with it."""
    base = flat(frozen, frozen["arm"])
    base = {key: base[key] for key in base if key not in ("sweep", "arm", "variants")}
    sweep = frozen["sweep"]
    return parse_aims(sweep), parse_space(sweep, base, frozen["variants"])


def _tell(findings: Findings, most: object, terminal: Terminal) -> None:
    def line(text: str) -> None:
        terminal.console.print(text, markup=False)

    limit = f"; {most} trials at most" if most is not None else ""
    line(f"{findings.name}: {findings.counts()}; {minutes(findings)}{limit}")
    for record in findings.records:
        if record.state == "running":
            look = probe_text(record.looks[-1]) if record.looks else "no probe yet"
            line(f"trial {record.number} running ({findings.settings(record)}): {look}")
    top = [r for r in findings.ordered if r.state == "complete"][:_MOST]
    if top:
        line(f"\n{trials_table(findings, top).to_text()}")
    for record in findings.records:
        if record.state in ("pruned", "failed"):
            line(f"trial {record.number} {record.state}: {record.why}")
    line(f"{answer(findings)}\n")
