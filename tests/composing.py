"""Configurations as the commands compose them, and two training steps with them."""

from collections.abc import Mapping
from typing import Any

import hydra
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from rrl_dist.cli.app import CONFIGS
from rrl_dist.core.batch import Batch
from rrl_dist.data.datasets import DataSource, ImageSet
from rrl_dist.data.views import Views
from rrl_dist.models.encoder import Encoder
from rrl_dist.objectives.objective import Objective
from rrl_dist.training.build import build, build_encoder, build_objective
from rrl_dist.training.loop import after_step
from rrl_dist.training.optim import parameter_groups, set_learning_rate
from rrl_dist.training.rehearsal import check_views, untrained_teacher

Config = Mapping[str, Any]

TINY = ("model=small_cnn", "model.backbone.width=4")
SAMPLES = 8
CLASSES = 3
# Objectives that read one with their own files' settings.
ONE_VIEW = {"supervised", "pgd_at", "trades", "anchored", "deacl", "worst_case_mi"}


def names(group: str) -> list[str]:
    """What can be chosen from a group."""
    return [path.stem for path in sorted((CONFIGS / group).glob("*.yaml"))]


def compose(command: str, *overrides: str) -> dict[str, Any]:
    """A command's plain configuration; what it leaves to the user is filled in."""
    choices = list(overrides)
    if command == "run" and not any(o.startswith("experiment=") for o in overrides):
        choices.append("experiment=demo")
    with hydra.initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = hydra.compose(command, choices)
    for key in OmegaConf.missing_keys(config):
        OmegaConf.update(config, key, "given")
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return plain


def views_of(objective: str) -> str:
    """As many as the method of that name reads with its own file's settings."""
    return "weak" if objective in ONE_VIEW else "simclr"


def tiny_model() -> Config:
    """A model for steps that take no time."""
    return compose("pretrain", *TINY)["model"]


def tiny_encoder(seed: int = 0) -> Encoder:
    return build_encoder(tiny_model(), seed=seed)


def random_batch(views: Views, size: int, *, step: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(step)
    images = torch.rand(SAMPLES, 3, size, size, generator=generator)
    index = torch.arange(100, 100 + SAMPLES)
    drawn = views(images, index, seed=0, epoch=0)
    # In the middle of a run, where every term counts.
    return Batch(images, drawn, index % CLASSES, index, step, progress=0.5)


def steps(
    stage: Config, *, model: Config, size: int | None = None, count: int = 2
) -> Objective:
    """Train as the loop does, on random images: what is trained moves.

    Args:
        stage: `objective`, `views`, `optim`, `strategy`, `data`, and `teacher`, which
            is an untrained one if it is not None.
        model: stands in for the stage's.
        size: of the images; None for the data set's.
        count: of the steps.
    """
    source: DataSource = build(stage["data"])
    teacher = None
    if stage["teacher"] is not None:
        teacher = untrained_teacher({**stage, "model": model})
    objective = build_objective(
        stage["objective"],
        encoder=build_encoder(model, seed=0),
        teacher=teacher,
        num_classes=CLASSES,
        image_size=size or source.size,
        seed=0,
    )
    optim = stage["optim"]
    groups = parameter_groups(
        objective.train(),
        weight_decay=optim["weight_decay"],
        decay_norm_and_bias=optim["decay_norm_and_bias"],
    )
    optimizer = build(optim["optimizer"], groups=groups)
    set_learning_rate(optimizer, 0.1)
    strategy = build(stage["strategy"], clip_grad=optim["clip_grad"])
    strategy.wrap(objective, optimizer, torch.device("cpu"))
    views: Views = build(stage["views"])
    check_views(objective, views)
    trained = [p for p in objective.parameters() if p.requires_grad]
    with strategy.gathered():
        before = [p.detach().clone() for p in trained]
    for step in range(count):
        batch = random_batch(views, size or source.size, step=step)
        with strategy.raw():
            batch = objective.inner(batch)
        assert all(p.grad is None for p in objective.parameters())
        terms = strategy.forward(batch)
        assert all(bool(term.isfinite()) for term in terms.values())
        strategy.update(terms["loss"])
        after_step(objective, strategy, (step + 1) / count)
    with strategy.gathered():
        assert all(bool(p.isfinite().all()) for p in trained)
        pairs = zip(trained, before, strict=True)
        moved = [not torch.equal(p, old) for p, old in pairs]
    assert sum(moved) > len(moved) / 2
    return objective


def one_step(name: str, strategy: str) -> None:
    """Of an objective's YAML under a strategy's, on this worker."""
    chosen = (f"objective={name}", f"strategy={strategy}")
    config = compose("pretrain", *chosen, f"views={views_of(name)}", "optim=sgd")
    steps({**config, "teacher": "any"}, model=tiny_model(), size=16, count=1)


# Where a group's files are chosen: a command, and what the group is called there.
GROUPS = {
    "attack": ("pretrain", "attack@probe.attack"),
    "ball": ("pretrain", "ball"),
    "cluster": ("pretrain", "cluster"),
    "corruptions": ("evaluate", "corruptions@suite.corruptions"),
    "data": ("pretrain", "data"),
    "experiment": ("run", "experiment"),
    "head": ("finetune", "head@protocol.head"),
    "model": ("pretrain", "model"),
    "objective": ("pretrain", "objective"),
    "optim": ("pretrain", "optim"),
    "preset": ("run", "preset"),
    "probe": ("pretrain", "probe"),
    "protocol": ("evaluate", "protocol"),
    "sampler": ("tune", "sampler"),
    "strategy": ("pretrain", "strategy"),
    "sweep": ("tune", "sweep"),
    "suite": ("evaluate", "suite"),
    "train": ("pretrain", "train"),
    "views": ("pretrain", "views"),
    "vulnerability": ("evaluate", "vulnerability@suite.vulnerability"),
}


def every(group: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("name", names(group))


def chosen(group: str, name: str, *overrides: str) -> dict[str, Any]:
    command, key = GROUPS[group]
    return compose(command, f"{key}={name}", *overrides)


def random_images(count: int, size: int) -> ImageSet:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (count, size, size, 3), dtype=np.uint8)
    places = np.arange(count)
    return ImageSet("random", pixels, places % 3, places, ("a", "b", "c"))
