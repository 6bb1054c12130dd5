"""Small evaluations, composed from the project's own configurations."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rrl_dist.core.columns import Columns
from rrl_dist.core.records import Row, from_bytes, rows_of
from rrl_dist.core.store import open_store
from rrl_dist.evaluate.estimation import Estimation
from rrl_dist.evaluate.evaluation import Evaluation, Watch
from rrl_dist.evaluate.images import chosen_images, pixels
from rrl_dist.evaluate.ledger import Ledger
from rrl_dist.evaluate.plan import build_suite
from rrl_dist.evaluate.source import Source
from rrl_dist.evaluate.status import Status
from rrl_dist.evaluate.surrogates import load_models
from rrl_dist.models.artefact import save_artefact
from rrl_dist.models.encoder import Classifier
from rrl_dist.training.build import build, build_encoder
from rrl_dist.training.probe import features, fit_linear
from tests.composing import compose
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
# Of small images: a second on a core.
QUICK = Estimation(
    estimator="dv",
    batch_size=16,
    steps=80,
    lr=2e-3,
    width=8,
    embedding=16,
    grid=8,
    attack_steps=3,
    relative_step=0.5,
)
REPRESENTATION = (
    "suite=representation",
    "suite.attacks.apgd_dlr.steps=6",
    "suite.attacks.feature20.steps=4",
    "suite.search.attack.steps=8",
)


def write_classifier(folder: Path, training: Mapping[str, Any] | None = None) -> None:
    """A linear head on random features: right more often than not, and easily led.

    Args:
        folder: receives it.
        training: what the model's file shall say of it.
    """
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
        training=dict(training or {}),
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
        "classifier": Source(str(classifier)),
        "has_encoder": True,
        "threads": 1,
        "fingerprint": fingerprint,
    }


def of_suite(job: Job, *overrides: str) -> Job:
    """With another suite, as the command `evaluate` composes it."""
    suite = compose("evaluate", *overrides)["suite"]
    return {
        **job,
        "suite": suite,
        "fingerprint": {**job["fingerprint"], "suite": suite},
    }


def quick(**changes: Any) -> Estimation:
    """`QUICK` with other numbers."""
    return Estimation(**{**vars(QUICK), **changes})


class Counter:
    """Notes what whoever watches is told.

    Attributes:
        total: pairs of sample and component.
        told: how many of them were settled each time.
    """

    def __init__(self) -> None:
        self.total = 0
        self.told: list[int] = []
        self.last: Status | None = None

    def __call__(self, status: Status) -> None:
        self.total, self.last = status.total, status
        self.told.append(status.settled - sum(self.told))


def run(
    job: Job,
    folder: Path | str,
    cluster: Mapping[str, Any] = DEBUG,
    watch: Watch | None = None,
    notify: Callable[[str], None] = print,
) -> dict[str, Any]:
    return made_of(job, folder, cluster).run(watch or Counter(), notify)


def made_of(
    job: Job, folder: Path | str, cluster: Mapping[str, Any] = DEBUG
) -> Evaluation:
    source = job["classifier"]
    job = {**job, "has_encoder": source.has_encoder}
    others = job.get("surrogates", {})
    store = open_store(folder)
    models = partial(load_models, source, others)
    return Evaluation(job, store, cluster, models=models)


def made(index: int, component: str, correct: bool) -> Row:
    """A row by hand."""
    return Row(
        index=index,
        label=0,
        predicted=int(not correct),
        component=component,
        correct=correct,
        margin=0.0,
        confidence=1.0,
        loss=0.0,
        distance=0.0,
        displacement=0.0,
        queries=0,
        seed=0,
        seconds=0.0,
    )


def columns(rows: Sequence[Row]) -> dict[str, Columns]:
    """Rows by component, as they are averaged."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.component, []).append(row)
    return {name: Columns.of_rows(group) for name, group in groups.items()}


def ledger_of(job: Job, folder: Path | str) -> Ledger:
    named = dict.fromkeys(job.get("surrogates", {}), nn.Identity())
    suite = build_suite(job["suite"], job["ball"], seed=0, surrogates=named)
    index = chosen_images(job).index
    return Ledger(open_store(folder), suite.chains, index)


def rows_in(folder: Path) -> list[Row]:
    """All rows of a finished evaluation without their times, by component and
    sample."""
    rows = []
    for file in sorted((folder / "samples").iterdir()):
        table, _ = from_bytes(file.read_bytes(), file.name)
        rows += rows_of(table)
    rows.sort(key=lambda row: (row.component, row.index))
    return [replace(row, seconds=0.0) for row in rows]


def by_sample(folder: Path, component: str) -> dict[int, Row]:
    return {row.index: row for row in rows_in(folder) if row.component == component}


def chosen(job: Job) -> tuple[Tensor, Tensor, Tensor]:
    """The evaluation's images [N, 3, H, W] in [0, 1], labels and index."""
    images = chosen_images(job)
    x = pixels(images, np.arange(len(images)))
    return x, torch.from_numpy(images.labels), torch.from_numpy(images.index)
