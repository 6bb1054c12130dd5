"""One worker of an evaluation: it holds the model once, and turns tasks into rows."""

import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rrl_dist.attacks.micro_batches import in_micro_batches
from rrl_dist.attacks.result import Attack
from rrl_dist.core.errors import UserError
from rrl_dist.core.modes import evaluating
from rrl_dist.core.randomness import stream
from rrl_dist.core.records import Row, write_rows
from rrl_dist.core.storage import write_bytes
from rrl_dist.data.datasets import DataSource, ImageSet
from rrl_dist.data.memory_loader import read_images
from rrl_dist.evaluate.plan import ATOM, Picture, Task, Unit, build_suite
from rrl_dist.training.build import build, load_classifier

Job = Mapping[str, Any]


def chosen_images(job: Job) -> ImageSet:
    """The images of an evaluation: its split, or a fixed part of it of `limit`."""
    source: DataSource = build(job["data"])
    images = source.split(job["split"])
    limit = job["limit"]
    if limit is not None and int(limit) < 1:
        raise UserError(f"evaluate.limit={limit}; set at least 1, or null for all")
    if limit is None or int(limit) >= len(images):
        return images
    order = stream(0, "evaluate").permutation(len(images))
    return images.select(np.sort(order[: int(limit)]))


class Evaluator:
    """Attacks images with the components of a job.

    Args:
        job: plain configuration: `data`, `split`, `limit`, `classifier` (a folder),
            `suite`, `ball`, `seed`, `threads`.
        folder: receives rows and pictures.
        device: where the model runs.
    """

    def __init__(self, job: Job, folder: Path, device: torch.device) -> None:
        torch.set_num_threads(int(job["threads"]))
        self.folder = folder
        self.device = device
        self.model = load_classifier(Path(job["classifier"]))[0].to(device)
        self.images = chosen_images(job)
        self.seed = int(job["seed"])
        self.micro_batch = int(job["suite"]["micro_batch"])
        suite = build_suite(job["suite"], job["ball"], seed=self.seed)
        self.attacks = suite.attacks

    def run(self, task: Task) -> Task:
        """Write a task's file; writing it twice is harmless."""
        if isinstance(task, Picture):
            self._draw(task)
        else:
            self._attack(task)
        return task

    def _attack(self, unit: Unit) -> None:
        rows = []
        for first in range(unit.first, unit.last, ATOM):
            positions = np.arange(first, min(first + ATOM, unit.last))
            rows += self._atom(unit.component, positions)
        write_rows(self.folder / unit.file, rows)

    def _atom(self, component: str, positions: np.ndarray) -> list[Row]:
        begin = time.perf_counter()
        attack = self.attacks[component]
        x, y, index = self._read(positions)
        x_adv, queries = self._attacked(attack, x, y, index)
        logits = self._logits(x_adv)
        distance = torch.zeros(len(x))
        if attack is not None:
            distance = attack.ball.distance(x_adv, x)
        seconds = (time.perf_counter() - begin) / len(x)
        predicted = logits.argmax(1)
        confidence = logits.softmax(1).amax(1)
        columns = (
            index,
            y,
            predicted,
            _margin(logits, y),
            confidence,
            distance,
            queries,
        )
        return [
            Row(
                index=int(i),
                label=int(label),
                predicted=int(guess),
                component=component,
                correct=int(guess) == int(label),
                margin=float(margin),
                confidence=float(sure),
                distance=float(far),
                queries=int(passes),
                seed=self.seed,
                seconds=seconds,
            )
            for i, label, guess, margin, sure, far, passes in zip(
                *(column.tolist() for column in columns), strict=True
            )
        ]

    def _attacked(
        self, attack: Attack | None, x: Tensor, y: Tensor, index: Tensor
    ) -> tuple[Tensor, Tensor]:
        if attack is None:
            return x, torch.zeros_like(y)
        result = attack.run(self.model, x, y, index)
        return result.x_adv, result.queries

    @torch.no_grad()
    def _logits(self, x: Tensor) -> Tensor:
        """In the attacks' own shape: at another one, a logit may round otherwise."""
        with evaluating(self.model):
            (logits,) = in_micro_batches(
                lambda part: (self.model(part).float(),), x, size=self.micro_batch
            )
        return logits

    def _read(self, positions: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        x = read_images(self.images, positions).to(self.device).float() / 255
        labels = torch.as_tensor(self.images.labels[positions], device=self.device)
        index = torch.as_tensor(self.images.index[positions], device=self.device)
        return x, labels, index

    def _draw(self, picture: Picture) -> None:
        count = min(picture.count, len(self.images))
        # Spread over the set: image folders are sorted by class.
        positions = np.arange(count) * len(self.images) // count
        attack = self.attacks[picture.component]
        x, y, index = self._read(positions)
        x_adv, _ = self._attacked(attack, x, y, index)
        arrays = {
            "images": x,
            "attacked": x_adv,
            "labels": y,
            "predicted_clean": self._logits(x).argmax(1),
            "predicted_attacked": self._logits(x_adv).argmax(1),
        }
        memory = io.BytesIO()
        np.savez(
            memory,
            allow_pickle=False,
            classes=np.array(self.images.classes),
            eps=np.array(attack.ball.eps if attack is not None else 0.0),
            **{name: value.cpu().numpy() for name, value in arrays.items()},
        )
        write_bytes(self.folder / picture.file, memory.getvalue())


def _margin(logits: Tensor, y: Tensor) -> Tensor:
    """Logit of the label minus the largest other: negative where wrong."""
    own = logits.gather(1, y[:, None])[:, 0]
    others = logits.scatter(1, y[:, None], -torch.inf)
    return own - others.amax(1)
