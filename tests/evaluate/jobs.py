"""Small evaluations, composed from the project's own configurations."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from rrl_dist.core.records import Row, read_rows
from rrl_dist.evaluate.evaluation import evaluate
from rrl_dist.evaluate.pool import Progress
from rrl_dist.evaluate.robust import chosen_images
from rrl_dist.models.artefact import save_artefact
from rrl_dist.models.encoder import Classifier
from rrl_dist.training.build import build, build_encoder
from rrl_dist.training.probe import features, fit_linear
from tests.training.stages import composed

Job = dict[str, Any]

DEBUG = {"kind": "debug", "workers": 1, "threads": 1, "gpu": False}
LIMIT = 70
SUITE = (
    "ball.eps=0.03",
    "suite.micro_batch=32",
    "suite.attacks.pgd20.steps=4",
    "suite.attacks.apgd_ce.steps=6",
    "suite.curve.relative_eps=[0.5]",
    f"evaluate.limit={LIMIT}",
    "evaluate.gallery=3",
)
COMPONENTS = {
    "clean",
    "pgd4-linf@0.03",
    "apgd-ce-linf@0.03",
    "pgd4-linf@0.015",
}
REPRESENTATION = (
    "suite=representation",
    "suite.attacks.apgd_dlr.steps=6",
    "suite.attacks.feature20.steps=4",
    "suite.search.attack.steps=8",
)


def write_classifier(folder: Path) -> None:
    """A linear head on random features: right more often than not, and easily led."""
    config = composed("model.backbone.width=12")
    encoder = build_encoder(config["model"], seed=0).train()
    train = build(config["data"]).split("train")
    images = torch.from_numpy(train.images).permute(0, 3, 1, 2).contiguous()
    for module in encoder.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = 1.0  # one batch sets the statistics
    with torch.no_grad():
        encoder(images.float() / 255)
    cpu, labels = torch.device("cpu"), torch.from_numpy(train.labels)
    h = features(encoder, images, device=cpu)
    head = fit_linear(h, labels, num_classes=10, decay=1e-3)
    # Logits mean nothing but by their differences, and most are negative here.
    head.bias.sub_(20.0)
    save_artefact(
        folder,
        Classifier(encoder, head),
        model=config["model"],
        classes=train.classes,
        training={},
    )


def job_of(classifier: Path, *overrides: str) -> Job:
    """As an experiment makes it of its configuration."""
    config = composed(*SUITE, *overrides)
    fingerprint = {
        key: config[key] for key in ("suite", "ball", "seed", "data", "evaluate")
    }
    return {
        **config["evaluate"],
        **{key: config[key] for key in ("data", "suite", "ball", "seed")},
        "split": "test",
        "classifier": str(classifier),
        "threads": 1,
        "fingerprint": fingerprint,
    }


class Counter:
    """Notes what a progress bar would be told."""

    def __init__(self) -> None:
        self.total = 0
        self.told: list[int] = []

    def __call__(self, total: int) -> Progress:
        self.total = total
        return self.told.append


def run(
    job: Job,
    folder: Path,
    cluster: Mapping[str, Any] = DEBUG,
    progress: Callable[[int], Progress] | None = None,
) -> dict[str, Any]:
    return evaluate(job, folder, cluster, progress=progress or Counter())


def rows_in(folder: Path) -> list[Row]:
    """All rows without their times."""
    rows = read_rows(sorted((folder / "rows").iterdir()))
    return [replace(row, seconds=0.0) for row in rows]


def by_sample(folder: Path, component: str) -> dict[int, Row]:
    return {row.index: row for row in rows_in(folder) if row.component == component}


def chosen(job: Job) -> tuple[Tensor, Tensor, Tensor]:
    """The evaluation's images [N, 3, H, W] in [0, 1], labels and index."""
    images = chosen_images(job)
    x = torch.from_numpy(images.images).permute(0, 3, 1, 2).contiguous().float() / 255
    return x, torch.from_numpy(images.labels), torch.from_numpy(images.index)
