"""`cluster.overfit`: whether a method learns a few batches by heart.

A method whose loss does not fall on two batches that it sees again and again, the same
views and attacks each time, has a mistake in it that a long run would only hide.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rrl_dist.evaluate.source import Source
from rrl_dist.experiment import Experiment
from rrl_dist.judges import Judge
from rrl_dist.tasks import Part
from rrl_dist.training.journal import read_metrics

Config = Mapping[str, Any]


def overfitting(config: Config) -> dict[str, Any]:
    """What `cluster.overfit` makes of a command's configuration, if it is set.

    The run has a folder of its own, and each of its stages an identity of its own, so
    that none is ever taken for one that was trained. No probe is wanted, which tells
    of other images, and no checkpoint elsewhere.
    """
    batches = config["cluster"].get("overfit")
    if batches is None:
        return dict(config)
    found = {**config, "name": f"{config['name']}-overfit{batches}", "probe": None}
    if "train" in config:
        found["train"] = _repeated(config["train"], batches)
    if "protocol" in config:
        found["protocol"] = _protocol(config["protocol"], batches)
    if config.get("protocols") is not None:
        several = dict(config["protocols"])
        found["protocols"] = {k: _protocol(v, batches) for k, v in several.items()}
    if "arms" in config:
        found["arms"] = {
            arm: {**own, "train": _repeated(own["train"], batches)}
            for arm, own in config["arms"].items()
        }
    return found


def _protocol(own: Config, batches: int) -> dict[str, Any]:
    return {**own, "train": _repeated(own["train"], batches)}


def _repeated(train: Config, batches: int) -> dict[str, Any]:
    kept = {**train["checkpoints"], "best": None, "copy": None}
    return {**train, "overfit": batches, "checkpoints": kept}


def experiment_of(config: Config, *args: Any) -> Experiment:
    """An `Experiment`, or the check of one.

    Args:
        config: as `overfitting` returns it.
        args: the others of `Experiment`.
    """
    checks = config["cluster"].get("overfit") is not None
    return (Overfitting if checks else Experiment)(config, *args)


class Overfitting(Experiment):
    """Trains every stage on its few batches, tells of its loss, and measures nothing:
    what was learned by heart is of no worth on other images."""

    def _train(self, name: str, stage: dict[str, Any], part: Part) -> Path:
        folder = super()._train(name, stage, part)
        batches = int(self.config["cluster"]["overfit"])
        self.display.notify(told(read_metrics(folder / "metrics.jsonl"), batches))
        return folder

    def evaluate(self, arm: str, judge: Judge, source: Source) -> dict[str, Any]:
        """Nothing."""
        return {}

    def summarize(self, found: Mapping[Any, Config]) -> None:
        """Nothing."""


def told(metrics: list[dict[str, Any]], batches: int) -> str:
    """In one line, whether the loss fell.

    Args:
        metrics: a stage's lines, of which one ends with each pass.
        batches: of a pass.
    """
    losses: list[float] = []  # by step, the mean of the line that it is in
    for line in metrics:
        losses += [float(line["loss"])] * (int(line["step"]) - len(losses))
    passes = len(losses) // batches
    end = passes * batches
    first = sum(losses[:batches]) / batches
    last = sum(losses[end - batches : end]) / batches
    fell = "it fell" if last < first else "it did not fall"
    return (
        f"overfit on {batches} {'batch' if batches == 1 else 'batches'}: loss "
        f"{first:.4f} in the first pass, {last:.4f} in the last of {passes}: {fell}"
    )
