"""How long a training stage is, and what happens at which of its steps."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rrl_dist.core.errors import UserError
from rrl_dist.data.order import steps_per_epoch

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Length:
    """How long a run is, and what happens when.

    Attributes:
        images: samples of the training split.
        batch_size: of the global batch.
        steps_per_epoch, steps: of the optimizer.
        log_every, checkpoint_every: in steps; the latter also at each probe.
        probe_every: in steps; 0 for never. The last step is always probed otherwise.
        repeats: whether each epoch is the first one again, to its last random number.
    """

    images: int
    batch_size: int
    steps_per_epoch: int
    steps: int
    log_every: int
    checkpoint_every: int
    probe_every: int
    repeats: bool = False

    def due(self, step: int, every: int) -> bool:
        """Whether something that happens each `every` steps happens after `step`."""
        return every > 0 and (step % every == 0 or step == self.steps)

    def drawn(self, step: int) -> int:
        """The step that a step's random numbers are those of."""
        return step % self.steps_per_epoch if self.repeats else step


def run_length(
    train: Config,
    probe: Config | None,
    images: int,
    workers: int,
    *,
    key: str = "train",
) -> Length:
    """Steps of a run from its epochs, its batch size and the split's size.

    Args:
        train: length and batch; perhaps `overfit`, the number of batches of which each
            epoch is made, always the same.
        probe: of the same stage, or None.
        images: of its split.
        workers: that share a batch.
        key: of `train` in the configuration, for the message.

    Raises:
        UserError: the batch does not fit the split or the workers.
    """
    batch_size, overfit = int(train["batch_size"]), train.get("overfit")
    _check_batch(batch_size, images, workers, key)
    per_epoch = steps_per_epoch(count=images, batch_size=batch_size)
    if overfit is not None:
        per_epoch = _fitting(int(overfit), per_epoch, f"{key}.batch_size={batch_size}")
    steps = round(float(train["epochs"]) * per_epoch)
    if train["max_steps"] is not None:
        steps = min(steps, int(train["max_steps"]))
    if steps < 1:
        raise UserError(f"{key}.epochs and {key}.max_steps leave no step to train")
    if overfit is not None and steps < 2 * per_epoch:
        raise UserError(
            f"cluster.overfit={overfit} needs {2 * per_epoch} steps to go over its "
            f"batches twice; set {key}.epochs=2 and {key}.max_steps=null, or more"
        )
    if int(train["log_every"]) < 1:
        raise UserError(f"{key}.log_every={train['log_every']}; set at least 1")
    return Length(
        images=images,
        batch_size=batch_size,
        steps_per_epoch=per_epoch,
        steps=steps,
        log_every=int(train["log_every"]) if overfit is None else per_epoch,
        checkpoint_every=int(train["checkpoint_every"]),
        probe_every=0 if probe is None else round(probe["every_epochs"] * per_epoch),
        repeats=overfit is not None,
    )


def _check_batch(batch_size: int, images: int, workers: int, key: str) -> None:
    if batch_size > images:
        fit = images // workers * workers
        raise UserError(
            f"{key}.batch_size={batch_size} is more than the {images} training images; "
            f"set {key}.batch_size={fit} or less"
        )
    if batch_size % workers:
        fit = workers * max(1, batch_size // workers)
        raise UserError(
            f"{key}.batch_size={batch_size} does not split over {workers} workers; "
            f"set {key}.batch_size={fit} or change cluster.workers"
        )


def _fitting(overfit: int, batches: int, of: str) -> int:
    if overfit > batches:
        raise UserError(
            f"cluster.overfit={overfit}, but with {of} an epoch has {batches} batches; "
            f"set cluster.overfit={batches} or less"
        )
    return overfit
