"""One step of a stage on two random images, before anything is trained for hours.

A number that is no number, views that do not fit the method, a batch norm that cannot
be: all come out here, and not when the stage's turn has come.
"""

from collections.abc import Mapping
from typing import Any

import torch

from rrl_dist.core.batch import Batch
from rrl_dist.core.errors import UserError
from rrl_dist.objectives.objective import Frozen, Objective
from rrl_dist.training.build import build, build_encoder, build_objective
from rrl_dist.training.optim import parameter_groups, set_learning_rate
from rrl_dist.training.schedule import Schedule

Config = Mapping[str, Any]


def rehearse(name: str, stage: Config, *, size: int, num_classes: int) -> None:
    """Build every part of a stage and take one step.

    Args:
        name: of the stage, for the message.
        stage: as for `train_stage`; `model` says what encoder to build.
        size: side of the images, in pixels.
        num_classes: of the data.

    Raises:
        UserError: the stage could not be trained with these settings.
    """
    try:
        _step(stage, size, num_classes)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None
    except (TypeError, ValueError, LookupError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{name} cannot run with these settings: {type(error).__name__}: {reason}"
        ) from error


def _step(stage: Config, size: int, num_classes: int) -> None:
    device = torch.device("cpu")
    objective = untrained(stage, num_classes).train()
    optim = stage["optim"]
    groups = parameter_groups(
        objective,
        weight_decay=float(optim["weight_decay"]),
        decay_norm_and_bias=bool(optim["decay_norm_and_bias"]),
    )
    optimizer = build(optim["optimizer"], groups=groups)
    schedule: Schedule = build(optim["schedule"])
    lr = schedule(0.0, epochs=1.0, peak=float(optim["lr"]))
    strategy = build(
        {**stage["strategy"], "distributed": False}, clip_grad=optim["clip_grad"]
    )
    strategy.wrap(objective, optimizer, device)
    batch = random_batch(stage, 2, size, num_classes, device)
    with strategy.autocast():
        batch = objective.inner(batch)
    set_learning_rate(optimizer, lr)
    strategy.update(strategy.forward(batch)["loss"])


def untrained(stage: Config, num_classes: int) -> Objective:
    """A stage's objective around a fresh encoder, and a fresh teacher if it has one."""
    encoder = build_encoder(stage["model"], seed=0)
    teacher = None
    if stage["teacher"] is not None:
        teacher = Frozen(build_encoder(stage["model"], seed=1), sha256="untrained")
    return build_objective(
        stage["objective"],
        encoder=encoder,
        teacher=teacher,
        num_classes=num_classes,
        seed=0,
    )


def random_batch(
    stage: Config, samples: int, size: int, num_classes: int, device: torch.device
) -> Batch:
    """Random images in the stage's views."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(samples, 3, size, size, generator=generator).to(device)
    index = torch.arange(samples, device=device)
    views = build(stage["views"])(images, index, seed=0, epoch=0)
    return Batch(images, views, index % num_classes, index)
