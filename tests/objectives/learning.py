"""Training an encoder on scikit-learn's digits, at twice their stored size."""

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rrl_dist.core.aggregate import Proportion, wilson
from rrl_dist.core.batch import Batch
from rrl_dist.data.datasets import DataSource, ImageSet
from rrl_dist.data.memory_loader import read_images
from rrl_dist.data.order import worker_positions
from rrl_dist.data.views import Views
from rrl_dist.objectives.objective import Frozen, Objective
from rrl_dist.training.build import (
    build,
    build_encoder,
    build_objective,
    build_optimizer,
)
from rrl_dist.training.optim import set_learning_rate
from rrl_dist.training.probe import features, fit_linear
from rrl_dist.training.stage import peak_lr
from tests.composing import ONE_VIEW, compose

EPOCHS, BATCH = 20, 64
LABELLED = 5  # images of a class that the probe sees
CPU = torch.device("cpu")
_SHARED = (
    "data=digits",
    "data.size=16",
    "model=tiny_cnn",
    "ball=linf_005",
    "optim.weight_decay=1e-4",
)
# Under the others' SGD its critics learn next to nothing.
_OPTIM = {"worst_case_mi": ("optim=adam", "optim.lr=3e-3")}
_HEAD = ("projector.hidden=128", "projector.out=64")
_HEAD_OF_BASE = tuple(f"base.{choice}" for choice in _HEAD)
_WEAK = ("views=digits_weak", "views.policies.0.0.padding=2")
# In their own files sizes are for photographs, and 50,000 of them.
_SMALL: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("simclr", "acl", "rocl"), _HEAD),
    "moco": (*_HEAD, "queue_size=1024"),
    "byol": (*_HEAD, "predictor.hidden=128"),
    "simsiam": (*_HEAD, "predictor.hidden=32"),
    "barlow": ("projector.hidden=256", "projector.out=256"),
    "vicreg": ("projector.hidden=256", "projector.out=256"),
    # By `dv` 20 epochs are too few: docs/decisions.md.
    "worst_case_mi": ("estimator=nce", "embedding=256", "local.width=16"),
    # Begun with its teacher's weights, it would pass without a step.
    "deacl": ("start_from_teacher=false",),
    **dict.fromkeys(("tarrl", "spectral", "adversarial", "urrl"), _HEAD_OF_BASE),
}


def configured(name: str) -> Mapping[str, Any]:
    """An objective's YAML, its sizes aside, as `rrl pretrain` composes it."""
    views = _WEAK if name in ONE_VIEW else ("views=digits",)
    optim = _OPTIM.get(name, ("optim=sgd",))
    own = (f"objective.{choice}" for choice in _SMALL.get(name, ()))
    return compose("pretrain", f"objective={name}", *optim, *_SHARED, *views, *own)


@cache
def split(name: str) -> ImageSet:
    source: DataSource = build(configured("simclr")["data"])
    return source.split(name)


def pixels(images: ImageSet) -> Tensor:
    return read_images(images, np.arange(len(images)))


def untrained() -> nn.Module:
    return build_encoder(configured("simclr")["model"], seed=0)


@cache
def trained(name: str) -> nn.Module:
    """An encoder after `EPOCHS`, on one worker; a teacher is `simclr`'s."""
    config = configured(name)
    encoder = untrained()
    teacher = None
    if name in ("deacl", "anchored"):
        teacher = Frozen(trained("simclr"), sha256="simclr")
    objective = build_objective(
        config["objective"],
        encoder=encoder,
        teacher=teacher,
        num_classes=10,
        image_size=16,
        seed=0,
    )
    _train(objective.train(), config)
    return encoder


def _train(objective: Objective, config: Mapping[str, Any]) -> None:
    optim = config["optim"]
    optimizer, schedule = build_optimizer(optim, objective), build(optim["schedule"])
    for batch in _batches(build(config["views"])):
        terms = objective(objective.inner(batch))
        peak = peak_lr(optim, BATCH)
        rate = schedule(EPOCHS * batch.progress, epochs=EPOCHS, peak=peak)
        set_learning_rate(optimizer, rate)
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        objective.after_step(batch.progress)


def _batches(views: Views) -> Iterator[Batch]:
    images = split("train")
    x, labels = pixels(images).float() / 255, torch.as_tensor(images.labels)
    index, per_epoch = torch.as_tensor(images.index), len(images) // BATCH
    for step in range(EPOCHS * per_epoch):
        epoch, first = divmod(step, per_epoch)
        order = worker_positions(
            count=len(images),
            seed=0,
            epoch=epoch,
            batch_size=BATCH,
            rank=0,
            workers=1,
            start=first,
        )
        rows = torch.as_tensor(order[:BATCH])
        drawn = views(x[rows], index[rows], seed=0, epoch=epoch)
        progress = step / (EPOCHS * per_epoch)
        yield Batch(x[rows], drawn, labels[rows], index[rows], step, progress)


def few_labels(encoder: nn.Module) -> tuple[Proportion, Tensor]:
    """Test accuracy of a linear head that saw `LABELLED` images of each class, and the
    test features [N, D]."""
    train, test = split("train"), split("test")
    labels = torch.as_tensor(train.labels)
    seen = torch.cat([(labels == c).nonzero()[:LABELLED, 0] for c in range(10)])
    h = features(encoder, pixels(train)[seen], device=CPU)
    head = fit_linear(h, labels[seen], num_classes=10, decay=1e-3)
    h_test = features(encoder, pixels(test), device=CPU)
    right = int((head(h_test).argmax(1) == torch.as_tensor(test.labels)).sum())
    return wilson(right, len(test)), h_test
