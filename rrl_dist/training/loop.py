"""The training loop. It knows an objective's three methods and nothing of its kind."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from rrl_dist.core.batch import Batch
from rrl_dist.core.collectives import (
    any_worker,
    largest,
    rank,
    world_size,
)
from rrl_dist.core.errors import UserError
from rrl_dist.core.interrupts import StoppedError
from rrl_dist.data.loader import Loader, RawBatch
from rrl_dist.data.order import worker_positions
from rrl_dist.data.views import Views
from rrl_dist.models.artefact import load_strictly
from rrl_dist.objectives.objective import Objective
from rrl_dist.training.anomaly import anomalies_told
from rrl_dist.training.checkpoint_writer import CheckpointWriter
from rrl_dist.training.journal import Journal, TrainingDivergedError
from rrl_dist.training.length import Length
from rrl_dist.training.optim import set_learning_rate
from rrl_dist.training.schedule import Schedule
from rrl_dist.training.strategies import Strategy
from rrl_dist.training.wishes import LeftError, Looks, Wish, Wishes


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
    checkpoints: CheckpointWriter
    probe: Callable[[], dict[str, Any]] | None
    device: torch.device
    seed: int
    identity: str

    def run(
        self,
        first_step: int,
        after_epoch: Callable[[int], None],
        wishes: Wishes,
    ) -> None:
        """Train from `first_step` to the end.

        Args:
            first_step: steps already done, as `restore` returned it.
            after_epoch: called on every worker after each epoch, with its number.
            wishes: asked between steps whether to end before the end.

        Raises:
            TrainingDivergedError: naming step and term.
            StoppedError, LeftError: on all workers after the same step, which is
                saved, unless other workers have taken the run over.
        """
        length, step = self.length, first_step
        costly = self.device.type == "cuda" and world_size() > 1
        looks = Looks(self.device, costly=costly)
        while step < length.steps:
            epoch = step // length.steps_per_epoch
            for raw in self._epoch(epoch, start=step % length.steps_per_epoch):
                with anomalies_told(f"step {step + 1}"):
                    terms = self._step(raw, step)
                step += 1
                self.journal.add(step, terms)
                self._after(step)
                if step == length.steps:
                    break
                self._leave(looks.wish(wishes, step), step)
            after_epoch(epoch)
        with self.strategy.gathered():
            self._check_weights(step, dict(self.objective.named_parameters()))
        self.settle(copied=True)

    def _leave(self, wish: Wish, step: int) -> None:
        if wish is Wish.GO_ON:
            return
        if wish is not Wish.SUPERSEDED:
            self._flush(step)
            self.save(step)
            # Who goes on at once does so from the run directory, and a node that is
            # taken away does not wait for a store elsewhere.
            self.settle(copied=wish is Wish.STOP)
        if wish is Wish.STOP:
            raise StoppedError(f"stopped after step {step} of {self.length.steps}")
        raise LeftError(wish)

    def _check_weights(self, step: int, weights: Mapping[str, Tensor]) -> None:
        """The last update's losses were of before it."""
        broken = [name for name, value in weights.items() if not _finite(value)]
        if any_worker(bool(broken), self.device):
            raise _diverged(step, f"{(broken or ['a weight'])[0]} is not finite")

    def _epoch(self, epoch: int, *, start: int) -> Iterator[RawBatch]:
        positions = worker_positions(
            count=self.length.images,
            seed=self.seed,
            epoch=0 if self.length.repeats else epoch,
            batch_size=self.length.batch_size,
            rank=rank(),
            workers=world_size(),
            start=start,
        )
        # Past the run's last step nothing needs to be read.
        per_epoch = self.length.steps_per_epoch
        left = min(per_epoch, self.length.steps - epoch * per_epoch) - start
        share = self.length.batch_size // world_size()
        batches = self.loader.batches(positions[: left * share])
        return self.journal.breakdown.waiting(batches)

    def _step(self, raw: RawBatch, step: int) -> dict[str, Tensor]:
        part = self.journal.breakdown.part
        with part("views"):
            batch = self._batch(raw, step=step)
        with part("inner"), self.strategy.raw():
            batch = self.objective.inner(batch)
        with part("forward"):
            terms = self.strategy.forward(batch)
        with part("update"):
            self._update(terms["loss"], step)
        with part("after_step"):
            progress = (step + 1) / self.length.steps
            after_step(self.objective, self.strategy, progress)
        return terms

    def _update(self, loss: Tensor, step: int) -> None:
        lr = self.schedule(
            step / self.length.steps_per_epoch,
            epochs=self.length.steps / self.length.steps_per_epoch,
            peak=self.peak_lr,
        )
        set_learning_rate(self.optimizer, lr)
        try:
            self.strategy.update(loss)
        except FloatingPointError as error:
            raise _diverged(step + 1, str(error)) from None

    def _batch(self, raw: RawBatch, *, step: int) -> Batch:
        images = raw.images.to(self.device, non_blocking=True)
        index = raw.index.to(self.device, non_blocking=True)
        if not images.is_floating_point():
            images = images.float() / 255
        drawn = self.length.drawn(step)
        epoch = drawn // self.length.steps_per_epoch
        views = self.views(images, index, seed=self.seed, epoch=epoch)
        labels = raw.labels.to(self.device, non_blocking=True)
        return Batch(images, views, labels, index, drawn, step / self.length.steps)

    def _after(self, step: int) -> None:
        length = self.length
        probing = length.due(step, length.probe_every)
        saving = probing or length.due(step, length.checkpoint_every)
        if step - 1 == self.checkpoints.saved:
            # One step hides most of the writing, and then a loss costs no more than
            # the steps between two checkpoints.
            self.settle(copied=False)
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
        """Write a checkpoint while the next steps run, once the one before is durable.

        Raises:
            UserError: the one before could not be written.
        """
        if step == self.checkpoints.saved:
            return
        self.checkpoints.settle(self._agree, copied=False)
        self._check_weights(step, self.strategy.held())
        part = self.strategy.part()
        if part is not None:
            about = {"identity": self.identity, "step": step, "workers": world_size()}
            part = replace(part, state={**about, **part.state})
        self.checkpoints.save(step, part)

    def settle(self, *, copied: bool) -> None:
        """Wait until the last checkpoint is durable; on all workers.

        Args:
            copied: whether a copy that could not be made is an error.
        """
        self.checkpoints.settle(self._agree, copied=copied)

    def _agree(self, flag: bool) -> bool:
        return any_worker(flag, self.device)

    def restore(self, state: dict[str, Any] | None) -> int:
        """Load a checkpoint's state, the same on all workers, and hand the parts to
        the strategy.

        Returns:
            the number of steps done.

        Raises:
            UserError: the checkpoint is of a run with other settings, or the strategy
                cannot work with these parts.
        """
        step = 0 if state is None else int(state["step"])
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
        own = self.checkpoints.attempt if rank() == 0 else 0
        self.checkpoints.join(largest(own, self.device), step)
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
