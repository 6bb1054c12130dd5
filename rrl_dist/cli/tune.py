"""`rrl tune sweep=NAME objective=NAME name=SWEEP`, and `rrl tune show SWEEP`."""

import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from rrl_dist.cli.app import (
    absolute_folders,
    identity,
    run_command,
    run_folder,
    starter,
)
from rrl_dist.cli.progress import Terminal
from rrl_dist.cli.report import show
from rrl_dist.cli.tune_again import begun_as
from rrl_dist.cli.tune_show import show as show_sweep
from rrl_dist.core.errors import UserError
from rrl_dist.core.run_directory import open_run
from rrl_dist.evaluate.settings import check_settings
from rrl_dist.evaluate.suites import CONFIGS
from rrl_dist.training.cluster import check
from rrl_dist.tune.answer import ANSWER, chosen, retrain, write_experiment
from rrl_dist.tune.database import Address
from rrl_dist.tune.findings import Findings
from rrl_dist.tune.page import write_page
from rrl_dist.tune.record import Record
from rrl_dist.tune.search import Sweep, search
from rrl_dist.tune.setting import OF_ARM
from rrl_dist.tune.space import choices_of
from rrl_dist.tune.table import answer as in_a_sentence


def main() -> None:
    """Entry point."""
    if sys.argv[1:2] == ["show"]:
        show_sweep(sys.argv[2:])
        return
    run_command("tune", tune)


def tune(config: dict[str, Any], _: str) -> None:
    """Run what is missing of a sweep, and its answer."""
    terminal = Terminal()
    config = absolute_folders(config)
    sweep = _asked_for(config, run_folder(config), terminal)
    config, folder = dict(sweep.config), sweep.folder
    check(config["cluster"])
    check_settings(config["evaluate"])
    with ExitStack() as stack:
        start = starter(stack, config, folder)
        arms = {sweep.arm_name: {"objective": sweep.base["objective"]}}
        about = identity("tune", arms, config["data"])
        address = config["sweep"]["study"]
        text = OmegaConf.to_yaml(OmegaConf.create(config))
        kept = Address(address).hidden(text) if address else text
        stack.enter_context(open_run(folder, about, kept))
        records = search(sweep, start, terminal)
        conclude(sweep, records, start, terminal)


def conclude(
    sweep: Sweep,
    records: Sequence[Record],
    start: Callable[[], Mapping[str, Any]],
    terminal: Terminal,
) -> None:
    """Write what the sweep comes to, and train it again with other seeds."""
    findings = Findings(sweep.name, tuple(records), sweep.aims, sweep.space)
    for file in write_page(sweep.folder / ANSWER, findings):
        terminal.notify(str(file))
    terminal.notify(in_a_sentence(findings))
    members = chosen(sweep, records)
    if not members:
        raise UserError(
            "no trial has come to its end within the floors and checks; see "
            f"{sweep.folder / ANSWER / 'sweep.md'} for why"
        )
    terminal.notify(str(write_experiment(sweep, members[0])))
    folders = retrain(sweep, members, start, terminal)
    if folders:
        show(folders, sweep.folder / ANSWER, terminal)


def _asked_for(config: dict[str, Any], folder: Path, terminal: Terminal) -> Sweep:
    hydra = HydraConfig.get()
    begun = begun_as(config, list(hydra.overrides.task), folder)
    if begun is not None:
        terminal.notify(f"{folder} goes on as it was begun")
        config, variants, choices = begun.config, begun.variants, begun.choices
    arm = None if config["arm"] is None else str(config["arm"])
    if begun is None:
        variants = _variants(config, arm)
        chosen_of = hydra.runtime.choices.items()
        choices = {key: file for key, file in chosen_of if not key.startswith("hydra/")}
    return Sweep(config, arm, variants, folder, choices)


def _variants(config: Mapping[str, Any], arm: str | None) -> dict[str, dict[str, Any]]:
    """What is composed with each choice of a group that the space chooses from."""
    given = list(HydraConfig.get().overrides.task)
    found: dict[str, dict[str, Any]] = {}
    for key, choices in choices_of(config["sweep"]).items():
        group = key.replace(".", "/")
        files = {file.stem for file in (CONFIGS / group).glob("*.yaml")}
        if not files:
            continue
        place = _placed(group, key, config, arm)
        found[key] = {
            name: _content([*given, f"{place}={name}"], key, config, arm)
            for name in choices
            if name in files
        }
    return found


def _placed(group: str, key: str, config: Mapping[str, Any], arm: str | None) -> str:
    """The group as an override names it: an experiment has it once for each arm."""
    if config.get("arms") is None or key.split(".")[0] not in OF_ARM:
        return group
    return f"{group}@arms.{arm}.{key}"


def _content(
    overrides: list[str], key: str, config: Mapping[str, Any], arm: str | None
) -> Any:
    whole = OmegaConf.to_container(compose("tune", overrides), resolve=True)
    node: Any = whole
    if config.get("arms") is not None and key.split(".")[0] in OF_ARM:
        node = node["arms"][arm]
    for part in key.split("."):
        node = node[part]
    return node
