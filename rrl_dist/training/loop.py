"""The training loop. It knows an objective's three methods and nothing of its kind."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from rrl_dist.core.batch import Batch
from rrl_dist.core.collectives import (
    any_worker,
    barrier,
    rank,
    same_on_all,
    world_size,
)
from rrl_dist.core.errors import UserError
from rrl_dist.core.interrupts import StoppedError
from rrl_dist.data.loader import Loader, RawBatch
from rrl_dist.data.order import worker_positions
from rrl_dist.data.views import Views
from rrl_dist.models.artefact import load_strictly
from rrl_dist.objectives.objective import Objective
from rrl_dist.training.checkpoint import Checkpoints
from rrl_dist.training.journal import Journal, TrainingDivergedError
from rrl_dist.training.optim import set_learning_rate
from rrl_dist.training.schedule import Schedule
from rrl_dist.training.strategies import Strategy

# Steps between two looks at whether to stop, where a look costs GPUs a collective and
# a wait for the step in hand.
_STOP_ASKED_EVERY = 10


@dataclass(frozen=True)
class Length:
    """How long a run is, and what happens when.

    Attributes:
        images: samples of the training split.
        batch_size: of the global batch.
        steps_per_epoch, steps: of the optimizer.
        log_every, checkpoint_every: in steps; the latter also at each probe.
        probe_every: in steps; 0 for never. The last step is always probed otherwise.
    """

    images: int
    batch_size: int
    steps_per_epoch: int
    steps: int
    log_every: int
    checkpoint_every: int
    probe_every: int

    def due(self, step: int, every: int) -> bool:
        """Whether something that happens each `every` steps happens after `step`."""
        return every > 0 and (step % every == 0 or step == self.steps)


@dataclass(frozen=True)
class Trainer:
    """The parts of one training run on one worker."""

    objective: Objective
    strategy: Strategy
    optimizer: Optimizer
    schedule: Schedule
    peak_lr: float
    loader: Loader
    views: Views
    length: Length
    journal: Journal
    checkpoints: Checkpoints
    probe: Callable[[], dict[str, Any]] | None
    device: torch.device
    seed: int
    identity: str

    def run(
        self,
        first_step: int,
        after_epoch: Callable[[int], None],
        stop: Callable[[], bool],
    ) -> None:
        """Train from `first_step` to the end.

        Args:
            first_step: steps already done, as `restore` returned it.
            after_epoch: called on every worker after each epoch, with its number.
            stop: asked on rank 0 between steps whether to end before the end.

        Raises:
            TrainingDivergedError: naming step and term.
            StoppedError: on all workers after the same step, which is saved.
        """
        length, step = self.length, first_step
        while step < length.steps:
            epoch = step // length.steps_per_epoch
            for raw in self._epoch(epoch, start=step % length.steps_per_epoch):
                terms = self._step(raw, step=step, epoch=epoch)
                step += 1
                self.journal.add(step, terms)
                self._after(step)
                if step == length.steps:
                    break
                if self._asked(stop, step):
                    self._flush(step)
                    self.save(step)
                    raise StoppedError(f"stopped after step {step} of {length.steps}")
            after_epoch(epoch)
        with self.strategy.gathered():
            self._check_weights(step, dict(self.objective.named_parameters()))

    def _asked(self, stop: Callable[[], bool], step: int) -> bool:
        """Whether to stop here; the same answer on all workers."""
        waits = self.device.type == "cuda" and world_size() > 1
        if waits and step % _STOP_ASKED_EVERY:
            return False
        return any_worker(rank() == 0 and stop(), self.device)

    def _check_weights(self, step: int, weights: Mapping[str, Tensor]) -> None:
        """The last update's losses were of before it."""
        broken = [name for name, value in weights.items() if not _finite(value)]
        if any_worker(bool(broken), self.device):
            raise _diverged(step, f"{(broken or ['a weight'])[0]} is not finite")

    def _epoch(self, epoch: int, *, start: int) -> Iterator[RawBatch]:
        positions = worker_positions(
            count=self.length.images,
            seed=self.seed,
            epoch=epoch,
            batch_size=self.length.batch_size,
            rank=rank(),
            workers=world_size(),
            start=start,
        )
        # Past the run's last step nothing needs to be read.
        left = self.length.steps - epoch * self.length.steps_per_epoch - start
        share = self.length.batch_size // world_size()
        return self.loader.batches(positions[: left * share])

    def _step(self, raw: RawBatch, *, step: int, epoch: int) -> dict[str, Tensor]:
        batch = self._batch(raw, step=step, epoch=epoch)
        with self.strategy.raw():
            batch = self.objective.inner(batch)
        terms = self.strategy.forward(batch)
        lr = self.schedule(
            step / self.length.steps_per_epoch,
            epochs=self.length.steps / self.length.steps_per_epoch,
            peak=self.peak_lr,
        )
        set_learning_rate(self.optimizer, lr)
        try:
            self.strategy.update(terms["loss"])
        except FloatingPointError as error:
            raise _diverged(step + 1, str(error)) from None
        after_step(self.objective, self.strategy, (step + 1) / self.length.steps)
        return terms

    def _batch(self, raw: RawBatch, *, step: int, epoch: int) -> Batch:
        images = raw.images.to(self.device, non_blocking=True)
        index = raw.index.to(self.device, non_blocking=True)
        images = images.float() / 255
        views = self.views(images, index, seed=self.seed, epoch=epoch)
        labels = raw.labels.to(self.device, non_blocking=True)
        return Batch(images, views, labels, index, step, step / self.length.steps)

    def _after(self, step: int) -> None:
        length = self.length
        probing = length.due(step, length.probe_every)
        saving = probing or length.due(step, length.checkpoint_every)
        if saving or length.due(step, length.log_every):
            self._flush(step)
        if probing and self.probe is not None:
            found = self.probe()
            self.journal.write(step, found)
        if saving:
            self.save(step)
        if saving or probing:
            self.journal.restart_clock()

    def _flush(self, step: int) -> None:
        lr = self.optimizer.param_groups[0]["lr"]
        self.journal.flush(epoch=step / self.length.steps_per_epoch, lr=lr)

    def save(self, step: int) -> None:
        """Write a checkpoint from rank 0; the others wait until it is there."""
        state = self.strategy.state()
        self._check_weights(step, state["objective"])
        if rank() == 0:
            whole = {
                "identity": self.identity,
                "step": step,
                "workers": world_size(),
                **state,
            }
            self.checkpoints.save(step, whole)
        barrier()

    def restore(self, state: dict[str, Any] | None) -> int:
        """Load a checkpoint's state, and hand the parts to the strategy.

        Returns:
            the number of steps done.

        Raises:
            UserError: the checkpoint is of a run with other settings, or the strategy
                cannot work with these parts.
        """
        step = 0 if state is None else int(state["step"])
        if not same_on_all(step, self.device):
            raise UserError(
                f"workers see different checkpoints in {self.checkpoints.folder}; "
                "wait until all see the same files, and give the same command again"
            )
        known = None if state is None else self._checked(state)
        if known is not None:
            load_strictly(
                self.objective,
                known["objective"],
                source=f"the checkpoint in {self.checkpoints.folder}",
                mend="remove that folder to begin the stage again",
            )
        # After the weights: a strategy may keep copies of its own.
        self.strategy.wrap(self.objective, self.optimizer, self.device)
        if known is not None:
            self.strategy.load(known)
        return step

    def _checked(self, state: dict[str, Any]) -> dict[str, Any]:
        """The checkpoint's state, if it is one of this run."""
        if state["workers"] != world_size() and rank() == 0:
            self.checkpoints.notify(
                f"going on with {world_size()} workers after {state['workers']}: "
                "the last digits of the result depend on their number"
            )
        if state["identity"] != self.identity:
            raise UserError(
                f"{self.checkpoints.folder} holds checkpoints of other settings; "
                "choose another name= or remove that folder"
            )
        return state


def after_step(objective: Objective, strategy: Strategy, progress: float) -> None:
    """`Objective.after_step`, with whole weights if it reads or moves some."""
    # Only cut-up weights are gathered: to write in `gathered` also makes ZeRO 1 and 2
    # renew the optimizer's copies, which are of trained weights alone.
    needs_weights = objective.reads_weights or objective.moves_weights
    if needs_weights and strategy.partitions_weights:
        with strategy.gathered(write=objective.moves_weights):
            objective.after_step(progress)
    else:
        objective.after_step(progress)


def _diverged(step: int, what: str) -> TrainingDivergedError:
    return TrainingDivergedError(
        f"step {step}: {what}; lower optim.lr, set optim.clip_grad, or use "
        "strategy.precision=fp32"
    )


def _finite(x: Tensor) -> bool:
    return bool(x.detach().isfinite().all())
