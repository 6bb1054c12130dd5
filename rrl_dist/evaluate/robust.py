"""One worker of an evaluation: it holds the model once, and turns tasks into rows."""

import io
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rrl_dist.attacks.margins import logit_margin
from rrl_dist.attacks.result import Attack
from rrl_dist.core.errors import UserError
from rrl_dist.core.randomness import stream
from rrl_dist.core.records import Row, write_rows
from rrl_dist.core.storage import write_bytes, write_json
from rrl_dist.data.datasets import DataSource, ImageSet
from rrl_dist.data.memory_loader import read_images
from rrl_dist.evaluate.features import Answers, answers
from rrl_dist.evaluate.plan import ATOM, Picture, Survey, Task, Unit, build_suite
from rrl_dist.evaluate.survey import of_features, of_weights
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
        elif isinstance(task, Survey):
            self._survey(task)
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
        found = self._answers(x_adv, y, index)
        distance = torch.zeros(len(x))
        displacement = torch.zeros(len(x))
        if attack is not None:
            distance = attack.ball.distance(x_adv, x)
            moved = found.features - self._answers(x, y, index).features
            displacement = torch.linalg.vector_norm(moved.double(), dim=1)
        columns = {
            "index": index,
            "label": y,
            "predicted": found.logits.argmax(1),
            "correct": found.logits.argmax(1) == y,
            "margin": -logit_margin(found.logits, y),
            "confidence": found.logits.softmax(1).amax(1),
            "loss": found.loss,
            "distance": distance,
            "displacement": displacement,
            "queries": queries,
        }
        seconds = (time.perf_counter() - begin) / len(x)
        return [
            Row(component=component, seed=self.seed, seconds=seconds, **values)
            for values in _records(columns)
        ]

    def _attacked(
        self, attack: Attack | None, x: Tensor, y: Tensor, index: Tensor
    ) -> tuple[Tensor, Tensor]:
        if attack is None:
            return x, torch.zeros_like(y)
        result = attack.run(self.model, x, y, index)
        return result.x_adv, result.queries

    def _answers(self, x: Tensor, y: Tensor, index: Tensor) -> Answers:
        """In the attacks' own shape: at another one, a logit may round otherwise.

        Raises:
            UserError: a loss or a feature that is no number.
        """
        found = answers(self.model, x, y, size=self.micro_batch)
        usable = found.loss.isfinite() & found.features.isfinite().all(1)
        if not bool(usable.all()):
            first = int(index[~usable][0])
            raise UserError(
                f"the model's loss or features at sample {first} are not finite; "
                "check its weights and its precision"
            )
        return found

    def _survey(self, survey: Survey) -> None:
        places = np.arange(len(self.images))
        atoms = (self._read(places[at : at + ATOM]) for at in places[::ATOM])
        h = torch.cat([self._answers(*atom).features.cpu() for atom in atoms])
        found = {**of_features(h), **of_weights(self.model, self.images.size)}
        write_json(self.folder / survey.file, found)

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
            "predicted_clean": self._answers(x, y, index).logits.argmax(1),
            "predicted_attacked": self._answers(x_adv, y, index).logits.argmax(1),
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


def _records(columns: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """Columns [N] as N dictionaries of plain values."""
    values = zip(*(column.tolist() for column in columns.values()), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in values]
