"""`--plan`: the stages of an experiment, and what they would take here."""

from typing import Any

from rich.table import Table

from rrl_dist.data.datasets import DataSource
from rrl_dist.evaluate.plan import build_suite
from rrl_dist.experiment import Config, pretrain_stage, probe_stage
from rrl_dist.training.build import build
from rrl_dist.training.devices import gpus_here, own_device
from rrl_dist.training.forecast import Forecast, as_text, forecast
from rrl_dist.training.lineage import ordered
from rrl_dist.training.rehearsal import UNTRAINED
from rrl_dist.training.stage import run_length


def plan(config: Config) -> Table:
    """A table of stages with steps, memory, hours and disk.

    Hours and memory come from a few steps measured on this machine's device, scaled to
    the stage's length; nothing is written.
    """
    source: DataSource = build(config["data"])
    source.check()
    counts = {name: len(source.split(name)) for name in ("pretrain", "train", "test")}
    workers = int(config["cluster"]["workers"])
    table = Table(title=f"{config['name']}: stages", title_justify="left")
    for column in ("stage", "work", "memory a worker", "hours", "disk"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    betons = sum(counts[name] for name in ("pretrain", "train")) * 3 * source.size**2
    pixels = f"{sum(counts.values())} images"
    table.add_row("data", pixels, "", "", as_text(betons))
    hours = 0.0
    device = own_device({"gpu": config["cluster"]["gpu"] and gpus_here() > 0})
    for name, stage in _training_stages(config).items():
        length = run_length(stage["train"], None, counts[str(stage["split"])], workers)
        found = forecast(
            stage,
            steps=length.steps,
            size=source.size,
            num_classes=source.num_classes,
            workers=workers,
            device=device,
        )
        hours += found.hours
        table.add_row(name, f"{length.steps} steps", *_needs(found))
    for row in _evaluations(config, counts["test"]):
        table.add_row(*row)
    table.caption = (
        f"measured on this machine; training takes about {_hours(hours)} in all"
    )
    return table


def _training_stages(config: Config) -> dict[str, dict[str, Any]]:
    stages: dict[str, dict[str, Any]] = {}
    arms = ordered(config["arms"])
    for arm in arms:
        teacher = config["arms"][arm]["teacher"]
        known = None if teacher is None else UNTRAINED
        stages[f"pretrain-{arm}"] = pretrain_stage(config, arm, known)
    for arm in arms:
        stage = probe_stage(config, UNTRAINED)
        stages[f"probe-{arm}"] = {**stage, "model": config["model"]}
    return stages


def _evaluations(config: Config, images: int) -> list[tuple[str, ...]]:
    """Passes of the model by component: the suite's own numbers, not timed."""
    limit = config["evaluate"]["limit"]
    count = images if limit is None else min(images, int(limit))
    suite = build_suite(config["suite"], config["ball"], seed=0)
    work = f"{count} images x {len(suite.attacks)} components"
    return [(f"evaluate-{a}", work, "", "", "") for a in ordered(config["arms"])]


def _needs(found: Forecast) -> tuple[str, str, str]:
    return as_text(found.memory), _hours(found.hours), as_text(found.disk)


def _hours(hours: float) -> str:
    return f"{60 * hours:.1f} min" if hours < 1 else f"{hours:.1f} h"
