"""What all commands share: finding the configuration, and how they end."""

import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from rrl_dist.core.errors import UserError
from rrl_dist.training.journal import TrainingDivergedError

Command = Callable[[dict[str, Any], str], None]

_PACKAGE = Path(__file__).parents[1]
# In a source tree the configurations stand beside the package, in a wheel inside it.
CONFIGS = next(
    folder
    for folder in (_PACKAGE.parent / "configs", _PACKAGE / "configs")
    if (folder / "run.yaml").is_file()
)


def run_command(name: str, command: Command) -> None:
    """Run `command` as a Hydra application on `configs/NAME.yaml` and `sys.argv`.

    The command gets the resolved configuration as a plain dict, and as YAML. The
    user's mistakes end it with one line on stderr and status 2.
    """

    @hydra.main(config_path=str(CONFIGS), config_name=name, version_base="1.3")
    def main(config: DictConfig) -> None:
        try:
            _check_complete(name, config)
            plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
            assert isinstance(plain, dict)
            command(
                {str(k): v for k, v in plain.items()},
                OmegaConf.to_yaml(config, resolve=True),
            )
        except (UserError, TrainingDivergedError) as error:
            print(f"rrl {name}: {error}", file=sys.stderr)
            sys.exit(2)
        except KeyboardInterrupt:
            print(f"rrl {name}: stopped; the same command goes on", file=sys.stderr)
            sys.exit(130)

    signal.signal(signal.SIGTERM, _interrupt)
    main()


def _interrupt(number: int, frame: object) -> None:
    """A polite request to end is answered like Ctrl-C."""
    raise KeyboardInterrupt


def _check_complete(name: str, config: DictConfig) -> None:
    """Settings without a value are told one by one, not as a traceback.

    Raises:
        UserError: naming the first.
    """
    if name == "run" and OmegaConf.is_missing(config, "arms"):
        known = sorted(path.stem for path in (CONFIGS / "experiment").glob("*.yaml"))
        raise UserError(f"choose an experiment: experiment={'|'.join(known)}")
    if "seed" in config and not isinstance(config["seed"], int):
        raise UserError(f"seed={config['seed']}; set a whole number")
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
    root = config["data"]["root"]
    if root is not None:
        absolute = str(Path(root).expanduser().absolute())
        found["data"] = {**config["data"], "root": absolute}
    return found
