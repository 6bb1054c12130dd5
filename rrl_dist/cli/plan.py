"""`--plan`: the stages of an experiment, and what they would take here."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from rich.table import Table

from rrl_dist.evaluate.plan import build_suite
from rrl_dist.judges import Judge, judges_of
from rrl_dist.stages import Config, pretrain_stage
from rrl_dist.tasks import Part, attacked_split, cut_tasks
from rrl_dist.training.devices import gpus_here, own_device
from rrl_dist.training.forecast import Forecast, as_text, forecast
from rrl_dist.training.length import run_length
from rrl_dist.training.lineage import ordered
from rrl_dist.training.rehearsal import UNTRAINED


def plan(config: Config) -> Table:
    """A table of stages with steps, memory, hours and disk.

    Hours and memory come from a few steps measured on this machine's device, scaled to
    the stage's length; nothing is written.
    """
    whole = Part(None, config["data"])
    tasks = cut_tasks(config) or (whole,)
    judges = judges_of(config, tasks)
    attacked = attacked_split(config)
    parts = dict.fromkeys([whole, *tasks])
    counts = {part: _counts(part, attacked, judges) for part in parts}
    table = Table(title=f"{config['name']}: stages", title_justify="left")
    for column in ("stage", "work", "memory a worker", "hours", "disk"):
        table.add_column(column, justify="left" if column == "stage" else "right")
    table.add_row(*_data_row(whole, counts))
    device = own_device({"gpu": config["cluster"]["gpu"] and gpus_here() > 0})
    hours = 0.0
    for name, part, stage in _training_stages(config, whole, judges):
        steps, found = _forecast(config, stage, part, counts[part], device)
        hours += found.hours
        table.add_row(name, f"{steps} steps", *_needs(found))
    measured = config["cluster"].get("overfit") is None
    for arm in ordered(config["arms"]) if measured else ():
        for judge in judges:
            name = f"evaluate-{judge.entry(arm).name}"
            images = counts[judge.part][attacked]
            table.add_row(name, _attacks(config, images), "", "", "")
    table.caption = (
        f"measured on this machine; training takes about {_hours(hours)} in all"
    )
    return table


def _counts(part: Part, attacked: str, judges: Sequence[Judge]) -> dict[str, int]:
    part.check()
    heads = {judge.split for judge in judges if judge.part is part}
    read = part.read(sorted(heads)) | part.read(attacked=attacked)
    return {name: len(split) for name, split in read.items()}


def _data_row(whole: Part, counts: Mapping[Part, Mapping[str, int]]) -> tuple[str, ...]:
    """Images of the data set, and what their `.beton` files take."""
    stored = sum(counts[whole][name] for name in ("pretrain", "train"))
    stored += sum(count["train"] for part, count in counts.items() if part.task)
    shares = [c for own in counts.values() for name, c in own.items() if "@" in name]
    stored += sum(shares)
    once = {name: c for name, c in counts[whole].items() if "@" not in name}
    images = sum(count for name, count in once.items() if name != "val")
    size = stored * 3 * whole.source.size**2
    return "data", f"{images} images", "", "", as_text(size)


def _forecast(
    config: Config,
    stage: dict[str, Any],
    part: Part,
    counts: Mapping[str, int],
    device: torch.device,
) -> tuple[int, Forecast]:
    """Steps of a stage on a part, and its needs."""
    workers = int(config["cluster"]["workers"])
    with part.naming():
        length = run_length(stage["train"], None, counts[str(stage["split"])], workers)
    found = forecast(
        stage,
        steps=length.steps,
        size=part.source.size,
        num_classes=part.source.num_classes,
        workers=workers,
        device=device,
    )
    return length.steps, found


def _training_stages(
    config: Config, whole: Part, judges: Sequence[Judge]
) -> Iterator[tuple[str, Part, dict[str, Any]]]:
    """Name, images and configuration of each."""
    arms = ordered(config["arms"])
    for arm in arms:
        teacher = config["arms"][arm]["teacher"]
        known = None if teacher is None else UNTRAINED
        yield f"pretrain-{arm}", whole, pretrain_stage(config, arm, known)
    for arm in arms:
        for judge in judges:
            own = {**judge.stage(config, UNTRAINED), "model": config["model"]}
            yield f"probe-{judge.entry(arm).name}", judge.part, own


def _attacks(config: Config, images: int) -> str:
    """Passes of the model by component: the suite's own numbers, not timed."""
    limit = config["evaluate"]["limit"]
    count = images if limit is None else min(images, int(limit))
    suite = build_suite(config["suite"], config["ball"], seed=0)
    return f"{count} images x {len(suite.attacks)} components"


def _needs(found: Forecast) -> tuple[str, str, str]:
    return as_text(found.memory), _hours(found.hours), as_text(found.disk)


def _hours(hours: float) -> str:
    return f"{60 * hours:.1f} min" if hours < 1 else f"{hours:.1f} h"
