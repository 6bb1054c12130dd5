"""One step of a stage on two random images, before anything is trained for hours.

A number that is no number, a loss that is not finite, another number of views than the
method reads, a batch norm that cannot be: all come out here, and not when the stage's
turn has come.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rrl_dist.core.batch import Batch
from rrl_dist.core.errors import UserError
from rrl_dist.data.views import Views
from rrl_dist.objectives.objective import Frozen, Objective, name_of
from rrl_dist.training.anomaly import anomalies_told
from rrl_dist.training.build import (
    build,
    build_encoder,
    build_objective,
    build_optimizer,
    head_of,
    load_encoder,
    load_teacher,
)
from rrl_dist.training.checkpoint_disk import Need, bytes_of
from rrl_dist.training.checkpoint_policy import check_checkpoints, kept_of
from rrl_dist.training.feature_shards import check_features
from rrl_dist.training.micro_batch import hold_in_parts
from rrl_dist.training.optim import set_learning_rate
from rrl_dist.training.precision import check_precision
from rrl_dist.training.projector import fresh_projector
from rrl_dist.training.schedule import Schedule
from rrl_dist.training.strategies import TorchStrategy

Config = Mapping[str, Any]
UNTRAINED = Path("not-trained-yet")  # stands for a teacher that is still to come
# Of views, and what has as many.
_NUMBERS = {
    1: ("one view", "one policy, such as views=weak"),
    2: ("two views", "two policies, such as views=simclr"),
}


def rehearse(
    name: str, stage: Config, *, size: int, num_classes: int, workers: int
) -> Need:
    """Build every part of a stage and take one step.

    Args:
        name: of the stage, for the message.
        stage: as for `train_stage`; `model` says what encoder to build.
        size: side of the images, in pixels.
        num_classes: of the data.
        workers: that will train it.

    Returns:
        what its checkpoints take.

    Raises:
        UserError: the stage could not be trained with these settings.
        TrainingDivergedError: a gradient is NaN, in anomaly mode.
    """
    try:
        with anomalies_told(f"{name}: in one step on random images"):
            return _step(stage, size, num_classes, workers)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    except (TypeError, ValueError, LookupError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        reason = "; ".join([reason, *getattr(error, "__notes__", ())])
        raise UserError(
            f"{name} cannot run with these settings: {type(error).__name__}: {reason}"
        ) from error


def _step(stage: Config, size: int, num_classes: int, workers: int) -> Need:
    check_checkpoints(stage["train"], stage["probe"])
    device = torch.device("cpu")
    objective = untrained(stage, size, num_classes).train()
    objective.check(workers)
    hold_in_parts(objective, stage["train"]["micro_batch"])
    optim = stage["optim"]
    optimizer = build_optimizer(optim, objective)
    schedule: Schedule = build(optim["schedule"])
    lr = schedule(0.0, epochs=1.0, peak=float(optim["lr"]))
    build(stage["strategy"], clip_grad=optim["clip_grad"]).check(optimizer, workers)
    strategy = alone(stage)
    strategy.wrap(objective, optimizer, device)
    batch = random_batch(stage, 2, size, num_classes, device)
    with strategy.raw():
        batch = objective.inner(batch)
    set_learning_rate(optimizer, lr)
    terms = strategy.forward(batch)
    strategy.update(terms["loss"])  # where anomaly mode finds what is NaN
    _check_finite(terms)
    objective.after_step(1.0)
    one = bytes_of([objective.state_dict(), optimizer.state_dict()])
    return Need(one, kept_of(stage["train"]["checkpoints"]).most)


def _check_finite(terms: Mapping[str, Tensor]) -> None:
    """Raises `UserError` for terms that training would stop at when it logs them."""
    wild = [name for name, value in terms.items() if not bool(value.isfinite())]
    if wild:
        raise UserError(
            f"{', '.join(wild)} {'is' if len(wild) == 1 else 'are'} not finite in "
            "one step on random images; check the settings under objective and model"
        )


def check_views(objective: Objective, views: Views) -> None:
    """Hold what a stage draws of an image against what its method reads.

    Raises:
        UserError: it draws fewer or more.
    """
    reads, draws = objective.views, len(views)
    if draws == reads:
        return
    many, mend = _NUMBERS.get(reads, (f"{reads} views", f"{reads} policies"))
    told = f"{name_of(objective)} reads {many}, views= draws {draws}"
    raise UserError(f"{told}; choose one of {mend}")


def alone(stage: Config) -> TorchStrategy:
    """A strategy of one process that computes as the stage's does."""
    given = str(stage["strategy"]["precision"])
    check_precision(given, gpu=True)
    # fp16 is refused on a CPU, where the driver may be.
    half = given == "fp16" and not torch.cuda.is_available()
    precision = "fp32" if half else given
    clip_grad = stage["optim"]["clip_grad"]
    return TorchStrategy(distributed=False, precision=precision, clip_grad=clip_grad)


def untrained(stage: Config, size: int, num_classes: int) -> Objective:
    """A stage's objective around a fresh encoder, and a fresh teacher if it has one.

    Raises:
        UserError: its teacher, or the model that it begins with, is there already and
            cannot be used, or its views are not as many as it reads.
    """
    if stage["init"] in (None, str(UNTRAINED)):
        encoder = build_encoder(stage["model"], seed=0)
    else:
        encoder, _ = load_encoder(Path(stage["init"]))
    teacher = None
    if stage["teacher"] not in (None, str(UNTRAINED)):
        teacher = load_teacher(Path(stage["teacher"]))
    elif stage["teacher"] is not None:
        teacher = untrained_teacher(stage)
    views: Views = build(stage["views"])
    objective = build_objective(
        stage["objective"],
        encoder=encoder,
        teacher=teacher,
        num_classes=num_classes,
        image_size=views.size(size),
        seed=0,
        **head_of(stage),
    )
    check_views(objective, views)
    if stage.get("cache_features"):
        check_features(objective, views)
    return objective


def untrained_teacher(stage: Config) -> Frozen:
    """Stands for one that is to come, with a projector where its method has one."""
    encoder, projector = build_encoder(stage["model"], seed=1), None
    if stage.get("teacher_objective") is not None:
        projector = fresh_projector(stage["teacher_objective"], encoder.num_features)
    return Frozen(encoder, sha256="untrained", projector=projector)


def random_batch(
    stage: Config, samples: int, size: int, num_classes: int, device: torch.device
) -> Batch:
    """Random images in the stage's views, at the run's end: every term counts."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(samples, 3, size, size, generator=generator).to(device)
    index = torch.arange(samples, device=device)
    views = build(stage["views"])(images, index, seed=0, epoch=0)
    return Batch(images, views, index % num_classes, index, progress=1.0)
