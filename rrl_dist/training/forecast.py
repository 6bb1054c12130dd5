"""What a training stage will take, from a few measured steps on this machine."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rrl_dist.core.batch import Batch
from rrl_dist.objectives.objective import Frozen, Objective
from rrl_dist.training.checkpoint_policy import kept_of
from rrl_dist.training.rehearsal import Config, alone, random_batch, untrained
from rrl_dist.training.strategies import TorchStrategy

_SAMPLES = 16
_TIMED = 2


@dataclass(frozen=True)
class Forecast:
    """A stage's needs.

    Attributes:
        hours: on this machine's device, `workers` of them at once.
        memory: bytes of each worker for weights, buffers, optimizer and saved
            activations, before what the framework itself takes.
        disk: bytes of the checkpoints kept and the model.
    """

    hours: float
    memory: float
    disk: float


def forecast(
    stage: Config,
    *,
    steps: int,
    size: int,
    num_classes: int,
    workers: int,
    device: torch.device,
) -> Forecast:
    """Measure some steps on random images and scale them up.

    Args:
        stage: as for `train_stage`; models that do not exist yet are stood in for by
            untrained ones of the same architecture.
        steps: of the run.
        size: side of the images, in pixels.
        num_classes: of the data.
        workers: that share the global batch.
        device: to measure on.
    """
    torch.set_num_threads(int(stage["threads"]))
    objective = untrained(stage, size, num_classes).to(device).train()
    teacher = getattr(objective, "teacher", None)
    if isinstance(teacher, Frozen):
        teacher.to(device)
    strategy = alone(stage)
    optimizer = torch.optim.SGD(
        [p for p in objective.parameters() if p.requires_grad], lr=0.0
    )
    strategy.wrap(objective, optimizer, device)

    def draw() -> Batch:
        return random_batch(stage, _SAMPLES, size, num_classes, device)

    seconds, activations = _measure(objective, strategy, draw)
    share = int(stage["train"]["batch_size"]) / workers
    held = min(share, stage["train"]["micro_batch"] or share)
    if held < share:
        seconds *= 4 / 3  # each part passes forward twice
    trained = 4.0 * sum(p.numel() for p in optimizer.param_groups[0]["params"])
    weights = 4.0 * sum(p.numel() for p in objective.parameters())
    # Batch norm's statistics, a queue of keys: no strategy cuts those up.
    buffers = float(sum(b.nbytes for b in objective.buffers()))
    # Momentum; Adam keeps one moment more.
    moments = 2 if "adam" in str(stage["optim"]["optimizer"]["_target_"]) else 1
    kept = kept_of(stage["train"]["checkpoints"]).most
    by_stage = (moments * trained, trained, weights)
    return Forecast(
        hours=steps * share * seconds / 3600,
        memory=_cut(stage, by_stage, workers) + buffers + held * activations,
        disk=weights + kept * (weights + buffers + moments * trained),
    )


# Of state, gradients and weights.
_OFFLOADED = {"none": (), "optimizer": (0,), "all": (0, 2)}


def _cut(stage: Config, by_stage: Sequence[float], workers: int) -> float:
    """Bytes that a worker holds of what ZeRO 1, 2 and 3 cut up, beside what it offloads
    to the host's memory."""
    zero = int(stage["strategy"].get("stage", 0))
    offloaded = _OFFLOADED[stage["strategy"].get("offload", "none")]
    return sum(
        n / (workers if zero > i else 1)
        for i, n in enumerate(by_stage)
        if i not in offloaded
    )


def _measure(
    objective: Objective, strategy: TorchStrategy, draw: Callable[[], Batch]
) -> tuple[float, float]:
    """Seconds and saved bytes of a step, per sample; its views are part of it."""
    saved: dict[int, int] = {}
    # Kept by the objective anyway, and no more of them in a larger batch.
    held = {_place(x) for x in (*objective.parameters(), *objective.buffers())}

    def note(x: Tensor) -> Tensor:
        if _place(x) not in held:
            saved[_place(x)] = x.untyped_storage().nbytes()
        return x

    begin = 0.0
    for step in range(_TIMED + 1):
        if step == 1:  # the first one warms up
            begin = time.perf_counter()
        batch = draw()
        with strategy.raw():
            inner = objective.inner(batch)
        saved.clear()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            loss = strategy.forward(inner)["loss"]
        strategy.update(loss)
        objective.after_step(1.0)
        if batch.images.is_cuda:
            torch.cuda.synchronize()
    seconds = (time.perf_counter() - begin) / _TIMED
    return seconds / _SAMPLES, sum(saved.values()) / _SAMPLES


def _place(x: Tensor) -> int:
    return x.untyped_storage().data_ptr()


def as_text(value: float) -> str:
    """Bytes for people."""
    return f"{value / 2**30:.1f} GB" if value > 2**29 else f"{value / 2**20:.0f} MB"
