"""What a training stage will take, from a few measured steps on this machine."""

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rrl_dist.core.batch import Batch
from rrl_dist.objectives.objective import Objective
from rrl_dist.training.checkpoint import KEPT
from rrl_dist.training.micro_batch import hold_in_parts
from rrl_dist.training.rehearsal import Config, alone, random_batch, untrained

_SAMPLES = 16
_TIMED = 2


@dataclass(frozen=True)
class Forecast:
    """A stage's needs.

    Attributes:
        hours: on this machine's device, `workers` of them at once.
        memory: bytes of each worker for weights, optimizer and saved activations,
            before what the framework itself takes.
        disk: bytes of the checkpoints kept and the model.
    """

    hours: float
    memory: float
    disk: float


def forecast(
    stage: Config, *, steps: int, size: int, num_classes: int, workers: int
) -> Forecast:
    """Measure some steps on random images and scale them up.

    Args:
        stage: as for `train_stage`; models that do not exist yet are stood in for by
            untrained ones of the same architecture.
        steps: of the run.
        size: side of the images, in pixels.
        num_classes: of the data.
        workers: that share the global batch.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(int(stage["threads"]))
    objective = untrained(stage, num_classes).to(device).train()
    hold_in_parts(objective, stage["train"]["micro_batch"])
    strategy = alone(stage)
    optimizer = torch.optim.SGD(
        [p for p in objective.parameters() if p.requires_grad], lr=0.0
    )
    strategy.wrap(objective, optimizer, device)
    batch = random_batch(stage, _SAMPLES, size, num_classes, device)
    seconds, activations = _measure(objective, strategy, batch)
    share = int(stage["train"]["batch_size"]) / workers
    weights = 4.0 * sum(p.numel() for p in objective.parameters())
    trained = 4.0 * sum(p.numel() for p in optimizer.param_groups[0]["params"])
    # Momentum; Adam keeps one moment more.
    moments = 2 if "adam" in str(stage["optim"]["optimizer"]["_target_"]) else 1
    return Forecast(
        hours=steps * share * seconds / 3600,
        memory=weights + (1 + moments) * trained + share * activations,
        disk=weights + KEPT * (weights + moments * trained),
    )


def _measure(objective: Objective, strategy: Any, batch: Batch) -> tuple[float, float]:
    """Seconds and saved bytes of a step, per sample."""
    saved: dict[int, int] = {}

    def note(x: Tensor) -> Tensor:
        saved[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    begin = 0.0
    for step in range(_TIMED + 1):
        if step == 1:  # the first one warms up
            begin = time.perf_counter()
        with strategy.autocast():
            inner = objective.inner(batch)
        saved.clear()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            loss = strategy.forward(inner)["loss"]
        strategy.update(loss)
        if batch.images.is_cuda:
            torch.cuda.synchronize()
    seconds = (time.perf_counter() - begin) / _TIMED
    return seconds / _SAMPLES, sum(saved.values()) / _SAMPLES


def as_text(value: float) -> str:
    """Bytes for people."""
    return f"{value / 2**30:.1f} GB" if value > 2**29 else f"{value / 2**20:.0f} MB"
