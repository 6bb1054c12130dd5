"""Every objective learns features on digits that a random encoder does not have."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rrl_dist.core.aggregate import Proportion, wilson
from rrl_dist.core.batch import Batch
from rrl_dist.data.datasets import DataSource, ImageSet
from rrl_dist.data.memory_loader import read_images
from rrl_dist.data.order import worker_positions
from rrl_dist.data.views import Views
from rrl_dist.objectives.objective import Frozen
from rrl_dist.training.build import (
    build,
    build_encoder,
    build_objective,
    build_optimizer,
)
from rrl_dist.training.optim import set_learning_rate
from rrl_dist.training.probe import features, fit_linear
from rrl_dist.training.stage import peak_lr
from tests.composing import compose, names

pytestmark = pytest.mark.slow

EPOCHS, BATCH = 12, 64
LABELLED = 5  # images of a class that the probe sees
CPU = torch.device("cpu")
# In their own files these are for 32-pixel photographs and 50,000 of them.
SMALL = {
    "deacl": ("views=digits_weak", "ball.eps=0.1"),
    "moco": ("objective.queue_size=1024",),
}


def configured(name: str) -> Mapping[str, Any]:
    shared = ("data=digits", "model=tiny_cnn", "ball=linf_005", "optim=sgd")
    views = () if name == "supervised" else ("views=digits",)
    own = SMALL.get(name, ())
    return compose("pretrain", f"objective={name}", *shared, *views, *own)


@cache
def split(name: str) -> ImageSet:
    source: DataSource = build(configured("simclr")["data"])
    return source.split(name)


def pixels(images: ImageSet) -> Tensor:
    return read_images(images, np.arange(len(images)))


@cache
def trained(name: str) -> nn.Module:
    """An encoder after some epochs, whose seed no other's choice depends on."""
    config = configured(name)
    encoder = build_encoder(config["model"], seed=0)
    teacher = None
    if name == "deacl":
        teacher = Frozen(trained("simclr"), sha256="simclr")
    objective = build_objective(
        config["objective"],
        encoder=encoder,
        teacher=teacher,
        num_classes=10,
        image_size=32,
        seed=0,
    ).train()
    optimizer = build_optimizer(config["optim"], objective)
    schedule, views = build(config["optim"]["schedule"]), build(config["views"])
    images, steps = split("train"), len(split("train")) // BATCH * EPOCHS
    for step, batch in enumerate(batches(images, views, steps)):
        terms = objective(objective.inner(batch))
        peak = peak_lr(config["optim"], BATCH)
        rate = schedule(EPOCHS * step / steps, epochs=EPOCHS, peak=peak)
        set_learning_rate(optimizer, rate)
        optimizer.zero_grad()
        terms["loss"].backward()
        optimizer.step()
        objective.after_step((step + 1) / steps)
    return encoder


def batches(images: ImageSet, views: Views, steps: int) -> Any:
    x, labels = pixels(images).float() / 255, torch.as_tensor(images.labels)
    index = torch.as_tensor(images.index)
    per_epoch = steps // EPOCHS
    for step in range(steps):
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
        yield Batch(x[rows], drawn, labels[rows], index[rows], step, step / steps)


def few_labels(encoder: nn.Module) -> tuple[Proportion, Tensor]:
    """Test accuracy of a linear head that saw a few labels, and the test features."""
    train, test = split("train"), split("test")
    labels = torch.as_tensor(train.labels)
    seen = torch.cat([(labels == c).nonzero()[:LABELLED, 0] for c in range(10)])
    h = features(encoder, pixels(train)[seen], device=CPU)
    head = fit_linear(h, labels[seen], num_classes=10, decay=1e-3)
    h_test = features(encoder, pixels(test), device=CPU)
    right = int((head(h_test).argmax(1) == torch.as_tensor(test.labels)).sum())
    return wilson(right, len(test)), h_test


@pytest.mark.parametrize("name", names("objective"))
def test_it_beats_a_random_encoder_and_does_not_collapse(name: str) -> None:
    random, _ = few_labels(build_encoder(configured(name)["model"], seed=0))
    found, h = few_labels(trained(name))
    print(name, found.value, random.value)
    assert found.value - random.value >= 0.1
    assert found.low > random.high
    unit = nn.functional.normalize(h, dim=1)
    assert float(unit.std(0).mean()) > 0.02  # 0 where all features are one direction
    assert effective_rank(h) > 5
    print(float(unit.std(0).mean()), effective_rank(h))


def effective_rank(h: Tensor) -> float:
    """exp of the entropy of the singular values' shares (Roy and Vetterli 2007)."""
    values = torch.linalg.svdvals(h - h.mean(0))
    share = values / values.sum()
    return float(torch.special.entr(share).sum().exp())
