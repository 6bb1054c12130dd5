"""What all commands share: finding the configuration, and how they end."""

import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import hydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from rrl_dist.cli.arguments import multirun_last
from rrl_dist.cli.overrides import check_overrides
from rrl_dist.core.errors import UserError
from rrl_dist.core.interrupts import answered
from rrl_dist.evaluate.corruption_files import absolute_suite
from rrl_dist.evaluate.suites import CONFIGS
from rrl_dist.training.checkpoint_folders import absolute_copies, check_copies
from rrl_dist.training.cluster import session
from rrl_dist.training.journal import TrainingDivergedError
from rrl_dist.training.nodes import check_nodes

Command = Callable[[dict[str, Any], str], None]

# Commands that heed them.
_DEBUGGING = {
    "overfit": ("run", "pretrain", "finetune"),
    "anomaly": ("run", "pretrain", "finetune", "tune", "evaluate"),
}


def run_command(name: str, command: Command) -> None:
    """Run `command` as a Hydra application on `configs/NAME.yaml` and `sys.argv`.

    The command gets the resolved configuration as a plain dict, and as YAML. The
    user's mistakes end it with one line on stderr and status 2.
    """

    @hydra.main(config_path=str(CONFIGS), config_name=name, version_base="1.3")
    def main(config: DictConfig) -> None:
        try:
            plain, text = _resolved(name, config)
            _check_debugging(name, plain)
            command(plain, text)
        except (UserError, TrainingDivergedError) as error:
            _refuse(name, error)

    sys.argv[1:] = multirun_last(sys.argv[1:])
    try:
        # A batch system's polite request to end is answered like Ctrl-C.
        with answered():
            check_overrides(name, CONFIGS, sys.argv[1:])
            main()
    except UserError as error:
        _refuse(name, error)
    except KeyboardInterrupt as stopped:
        told = str(stopped) or "stopped"
        print(f"{_said(name)}: {told}; the same command goes on", file=sys.stderr)
        sys.exit(130)


def _refuse(name: str, error: Exception) -> NoReturn:
    print(f"{_said(name)}: {error}", file=sys.stderr)
    sys.exit(2)


def _said(name: str) -> str:
    """The command of a configuration, such as "rrl bench attack"."""
    return f"rrl {name.replace('_', ' ')}"


def _resolved(name: str, config: DictConfig) -> tuple[dict[str, Any], str]:
    """The configuration as a plain dict, and as YAML, without references in it.

    Raises:
        UserError: a setting has no value, or a `${reference}` leads nowhere.
    """
    try:
        _check_complete(name, config)
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        text = OmegaConf.to_yaml(config, resolve=True)
    except OmegaConfBaseException as error:
        told = str(error).split("\n", 1)[0]
        raise UserError(f"{error.full_key}: {told}; write the value out") from None
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}, text


def _check_debugging(name: str, config: Mapping[str, Any]) -> None:
    """Refuse settings of `cluster=debug` that a command would not heed."""
    for setting, commands in _DEBUGGING.items():
        if config.get("cluster", {}).get(setting) and name not in commands:
            named = ", ".join(commands)
            raise UserError(f"cluster.{setting} is for rrl {named}; leave it out")


def _check_complete(name: str, config: DictConfig) -> None:
    """Settings without a value are told one by one, not as a traceback.

    Raises:
        UserError: naming the first.
    """
    if name == "run" and OmegaConf.is_missing(config, "arms"):
        known = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))
        raise UserError(f"choose an experiment: experiment={'|'.join(known)}")
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise UserError(f"{missing[0]} is not set; give {missing[0]}=VALUE")


def absolute_folders(config: dict[str, Any]) -> dict[str, Any]:
    """A copy whose folders do not depend on where a process was started."""
    found = dict(config)
    for key in config.keys() & {"storage", "betons"}:
        if "://" in str(config[key]):
            raise UserError(f"{key}={config[key]}: only folders can be used so far")
        found[key] = str(Path(config[key]).expanduser().absolute())
    if config.get("teacher") is not None:
        found["teacher"] = str(Path(config["teacher"]).expanduser().absolute())
    found["data"] = _absolute_root(config["data"])
    tasks = config.get("tasks")
    if isinstance(tasks, Mapping):  # some of which are data sets
        found["tasks"] = {name: _absolute_root(task) for name, task in tasks.items()}
    if "suite" in config:
        found["suite"] = absolute_suite(config["suite"])
    return absolute_copies(found)


def _absolute_root(data: Any) -> Any:
    if not isinstance(data, Mapping) or data.get("root") is None:
        return data
    return {**data, "root": str(Path(data["root"]).expanduser().absolute())}


def run_folder(config: Mapping[str, Any]) -> Path:
    """The folder that `name` has in `storage`.

    Raises:
        UserError: the name leads out of it.
    """
    name = str(config["name"])
    parts = Path(name).parts
    if not parts or ".." in parts or Path(name).is_absolute():
        raise UserError(f"name={name}; give a name alone, and its place by storage=")
    return Path(config["storage"]) / name


def identity(
    command: str, arms: Mapping[str, Any], data: Mapping[str, Any]
) -> dict[str, Any]:
    """What sets an experiment apart from others, its settings aside."""
    methods = {arm: _method(arms[arm]["objective"]) for arm in sorted(arms)}
    return {"command": f"rrl {command}", "arms": methods, "data set": data["name"]}


def _method(objective: Any) -> str:
    """Its name, and what it is around; `rrl evaluate` has it from a file that may be a
    stranger's."""
    if not isinstance(objective, Mapping):
        return str(objective).rpartition(".")[2]
    name = str(objective.get("_target_")).rpartition(".")[2]
    base = objective.get("base")
    return f"{name}({_method(base)})" if base else name


def starter(
    stack: ExitStack, config: Mapping[str, Any], folder: Path
) -> Callable[[], Mapping[str, Any]]:
    """What starts the cluster when a stage needs it, to end with `stack`.

    Args:
        stack: ends the cluster.
        config: of the command; `cluster` of it is as for `session`.
        folder: of the run, which all nodes must be able to use, as those that
            checkpoints are copied to.
    """

    @cache
    def start() -> Mapping[str, Any]:
        found = stack.enter_context(session(config["cluster"]))
        if found["kind"] == "auto":
            check_nodes(folder, gpu=bool(found["gpu"]))
            check_copies(config)
        return found

    return start
