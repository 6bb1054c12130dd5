"""A sweep whose trials take a second or two."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from rrl_dist.cli.app import CONFIGS
from rrl_dist.core.display import Silent
from rrl_dist.tune.record import Record
from rrl_dist.tune.search import Sweep

ARM = "spectral"
SMALL = (
    "experiment=sweep_digits",
    f"arm={ARM}",
    "cluster=debug",
    "cluster.threads=1",
    "loader=memory",
    "model.backbone.width=4",
    f"arms.{ARM}.objective.base.projector.hidden=16",
    f"arms.{ARM}.objective.base.projector.out=8",
    f"arms.{ARM}.train.batch_size=192",
    f"arms.{ARM}.train.epochs=3",
    "protocol.train.batch_size=192",
    "protocol.train.epochs=12",
    "probe.every_epochs=1",
    "probe.bank_images=150",
    "probe.attack.steps=2",
    "suite.attacks.apgd_ce.steps=3",
    "suite.attacks.apgd_t.steps=3",
    "suite.attacks.square.queries=5",
    "suite.curve.relative_eps=[1.0]",
    "sweep.trials=4",
    "sweep.answer.seeds=0",
)


def composed(*overrides: str) -> dict[str, Any]:
    """The configuration of the sweep, as the command line resolves it."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("tune", overrides=[*SMALL, "name=small", *overrides])
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def small_sweep(
    folder: Path, *overrides: str, space: Mapping[str, Any] | None = None
) -> Sweep:
    """Of the spectral term's weight, or of another space."""
    config = composed(*overrides)
    if space is not None:
        config["sweep"] |= {"space": dict(space), "start": []}
    return Sweep(config, ARM, {}, folder)


class Lines(Silent):
    """A display that keeps the lines of news."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def notify(self, line: str) -> None:
        self.lines.append(line)


def came_of(records: list[Record]) -> list[Any]:
    """All that is known of trials, but for times."""
    return [
        (
            r.number,
            r.state,
            dict(r.settings),
            r.values,
            r.violations,
            {k: v for k, v in r.measured.items() if k != "cost"},
            r.masked,
            r.looks,
            r.why,
        )
        for r in records
    ]
