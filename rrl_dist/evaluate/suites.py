"""Suites by name, for callers who have no command line."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rrl_dist.core.errors import UserError

_PACKAGE = Path(__file__).parents[1]
# In a source tree the configurations stand beside the package, in a wheel inside it.
CONFIGS = next(
    folder
    for folder in (_PACKAGE.parent / "configs", _PACKAGE / "configs")
    if (folder / "run.yaml").is_file()
)


def suite_config(suite: str | Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a suite, as `build_suite` takes it.

    Args:
        suite: its name in configs/suite, or a configuration.

    Raises:
        UserError: there is no suite of that name.
    """
    if not isinstance(suite, str):
        return dict(suite)
    known = sorted(path.stem for path in (CONFIGS / "suite").glob("*.yaml"))
    if suite not in known:
        raise UserError(f"there is no suite={suite}; choose {'|'.join(known)}")
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("evaluate", [f"suite={suite}"])
    found = OmegaConf.to_container(config.suite, resolve=True)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}
