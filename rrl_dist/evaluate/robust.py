"""One worker of an evaluation: it holds the model once, and turns work into files."""

import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from rrl_dist.attacks.balls import Ball
from rrl_dist.attacks.cascade import Cascade
from rrl_dist.attacks.margins import logit_margin
from rrl_dist.attacks.micro_batches import call_size
from rrl_dist.attacks.passes import Passes, counted
from rrl_dist.core.errors import UserError
from rrl_dist.core.records import Row, table_of, to_bytes
from rrl_dist.core.store import Store
from rrl_dist.data.datasets import DataSource, ImageSet
from rrl_dist.evaluate.features import Answers, answers
from rrl_dist.evaluate.grid import ATOM, Link, Unit
from rrl_dist.evaluate.images import chosen_images, in_order, pixels
from rrl_dist.evaluate.information import estimates
from rrl_dist.evaluate.plan import (
    Information,
    Picture,
    Probing,
    Survey,
    Task,
    build_suite,
)
from rrl_dist.evaluate.subject import Models
from rrl_dist.evaluate.survey import of_features, of_weights
from rrl_dist.evaluate.verdict.planned import prober_of
from rrl_dist.models.encoder import Classifier
from rrl_dist.training.build import build

Job = Mapping[str, Any]


@dataclass(frozen=True)
class Done:
    """What a worker tells of the work that it has done.

    Attributes:
        right: positions that the classifier still gets right.
        seconds: it took.
        passes: images that went through the model and back.
    """

    right: tuple[int, ...]
    seconds: float
    passes: Passes


@dataclass(frozen=True)
class _Found:
    """A link's outcome for N images.

    Attributes:
        x_adv: [N, ...] images, attacked or corrupted.
        queries: [N] int64.
        wrong: [N] bool as an attack in turn found itself; None where the answers to
            `x_adv` say it.
    """

    x_adv: Tensor
    queries: Tensor
    wrong: Tensor | None = None


class Evaluator:
    """Attacks images with the components of a job.

    Args:
        job: plain configuration: `suite`, `ball`, `seed`, `threads`, what
            `chosen_images` takes, and perhaps `keep_images`, whether attacked images
            are kept beside the rows.
        models: on the CPU.
        store: receives rows and pictures.
        device: where the models run.
        generation: of the lease under which this worker was started.
    """

    def __init__(
        self,
        job: Job,
        models: Models,
        store: Store,
        device: torch.device,
        *,
        generation: int = 0,
    ) -> None:
        torch.set_num_threads(int(job["threads"]))
        self.store, self.device, self.generation = store, device, generation
        self.model = models.subject.to(device)
        self.images = chosen_images(job)
        self.seed = int(job["seed"])
        self.micro_batch = call_size(device, job["suite"]["micro_batch"])
        self.suite = build_suite(
            job["suite"],
            job["ball"],
            seed=self.seed,
            device=device,
            surrogates={n: m.to(device) for n, m in models.surrogates.items()},
        )
        self.attacks = self.suite.attacks
        self.ball: Ball = build(job["ball"])
        self.data = cast(Mapping[str, Any], job.get("data"))
        self.keeps_images = bool(job.get("keep_images"))

    def run(self, work: Unit | Task) -> Done:
        """Leave the file of a unit or a task; writing it twice is harmless."""
        begin = time.perf_counter()
        right: tuple[int, ...] = ()
        with counted(self.model) as passes:
            if isinstance(work, Picture):
                self._draw(work)
            elif isinstance(work, Survey):
                self._survey(work)
            elif isinstance(work, Information):
                self._inform(work)
            elif isinstance(work, Probing):
                self._probe(work)
            else:
                right = self._attack(work)
        return Done(right, time.perf_counter() - begin, passes)

    def rows(self, link: Link, positions: Sequence[int]) -> tuple[list[Row], Tensor]:
        """What an attack does to the images at some positions, and the images.

        In one call: an image's outcome does not depend on its companions, and those
        that are still right share micro-batches.
        """
        begin = time.perf_counter()
        attack = self.attacks[link.component]
        x, y, index = self._read(np.asarray(positions, dtype=np.int64))
        outcome = self._attacked(link, x, y, index)
        found = self._answers(outcome.x_adv, y, index)
        ball = self.ball if attack is None else attack.ball
        wrong = outcome.wrong
        if wrong is None:
            wrong = found.logits.argmax(1) != y
        by = link.attack
        columns = {
            "index": index.tolist(),
            "label": y.tolist(),
            "predicted": found.logits.argmax(1).tolist(),
            "correct": (~wrong).tolist(),
            "margin": (-logit_margin(found.logits, y)).tolist(),
            "confidence": found.logits.softmax(1).amax(1).tolist(),
            "loss": found.loss.tolist(),
            "distance": ball.distance(outcome.x_adv, x).tolist(),
            "displacement": self._displacement(found, x, y, index),
            "queries": outcome.queries.tolist(),
            "broken_by": [by if broken else None for broken in wrong.tolist()],
        }
        seconds = (time.perf_counter() - begin) / len(x)
        common = {**self._corruption(link.component), "component": link.name}
        rows = [
            Row(seed=self.seed, seconds=seconds, **common, **values)
            for values in _records(columns)
        ]
        return rows, outcome.x_adv

    def _attack(self, unit: Unit) -> tuple[int, ...]:
        """Returns the positions that are still right."""
        rows, x_adv = self.rows(unit.link, unit.positions)
        about = {
            "atoms": ",".join(map(str, unit.atoms)),
            "generation": str(self.generation),
        }
        if self.keeps_images:
            index = torch.tensor([row.index for row in rows])
            arrays = {"index": index, "images": x_adv}
            self._write_arrays(unit.file.replace("rows/", "images/", 1), arrays)
        self.store.write(unit.file, to_bytes(table_of(rows), about))
        pairs = zip(unit.positions, rows, strict=True)
        return tuple(position for position, row in pairs if row.correct)

    def _corruption(self, component: str) -> dict[str, Any]:
        """Its columns; none of a component that is no corruption."""
        found = self.suite.corruptions.get(component)
        return {} if found is None else found.columns

    def _attacked(self, link: Link, x: Tensor, y: Tensor, index: Tensor) -> _Found:
        attack = self.attacks[link.component]
        if attack is None:
            corruption = self.suite.corruptions.get(link.component)
            if corruption is not None:
                x = corruption(x, seed=self.seed, index=index)
            return _Found(x, torch.zeros_like(y))
        if isinstance(attack, Cascade) and link.attack is not None:
            result, stage = attack.stage(link.attack, self.model, x, y, index)
            # A model that draws at random would say something else if asked again.
            return _Found(result.x_adv, result.queries, stage.wrong)
        result = attack.run(self.model, x, y, index)
        return _Found(result.x_adv, result.queries)

    def _displacement(
        self, found: Answers, x: Tensor, y: Tensor, index: Tensor
    ) -> list[float] | list[None]:
        """How far features were moved from those of the images x."""
        if found.features is None:
            return [None] * len(x)
        moved = found.features - cast(Tensor, self._answers(x, y, index).features)
        lengths: list[float] = torch.linalg.vector_norm(moved.double(), dim=1).tolist()
        return lengths

    def _answers(self, x: Tensor, y: Tensor, index: Tensor) -> Answers:
        """In the attacks' own shape: at another one, a logit may round otherwise.

        Raises:
            UserError: a loss, a probability or a feature that is no number.
        """
        found = answers(self.model, x, y, size=self.micro_batch)
        usable = found.loss.isfinite() & found.logits.softmax(1).isfinite().all(1)
        if found.features is not None:
            usable = usable & found.features.isfinite().all(1)
        if not bool(usable.all()):
            first = int(index[~usable][0])
            raise UserError(
                f"the model's logits or features at sample {first} are not finite; "
                "check its weights and its precision"
            )
        return found

    def _survey(self, survey: Survey) -> None:
        model = cast(Classifier, self.model)
        places = np.argsort(self.images.index)
        atoms = (
            self._read(places[at : at + ATOM]) for at in range(0, len(places), ATOM)
        )
        features = (cast(Tensor, self._answers(*atom).features) for atom in atoms)
        h = torch.cat([part.cpu() for part in features])
        found = {**of_features(h), **of_weights(model, self.images.size)}
        self.store.write_json(survey.file, found)

    def _probe(self, probing: Probing) -> None:
        rows = self._read(np.arange(min(probing.count, len(self.images))))
        prober = prober_of(self.suite, self.model, self.seed, self.micro_batch)
        self.store.write_json(probing.file, prober.measure(*rows).as_dict())

    def _inform(self, task: Information) -> None:
        """Of any worker the same: nothing in it depends on how units are cut."""
        assert self.suite.estimation is not None, "the plan has no such task"
        source: DataSource = build(self.data)
        found = estimates(
            cast(Classifier, self.model).encoder,
            source.split("train"),
            cast(ImageSet, in_order(self.images)),
            estimation=self.suite.estimation,
            ball=self.ball if task.attacked else None,
            seed=self.seed,
            device=self.device,
        )
        self.store.write_json(task.file, {"estimates": found})

    def _read(self, positions: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        x = pixels(self.images, positions).to(self.device)
        labels = torch.as_tensor(self.images.labels[positions], device=self.device)
        index = torch.as_tensor(self.images.index[positions], device=self.device)
        return x, labels, index

    def _draw(self, picture: Picture) -> None:
        count = min(picture.count, len(self.images))
        # Spread over the set: image folders are sorted by class.
        positions = np.arange(count) * len(self.images) // count
        attack = self.attacks[picture.component]
        x, y, index = self._read(positions)
        # A component of several attacks is shown as its last image of each sample.
        link = Link(picture.component)
        x_adv = self._attacked(link, x, y, index).x_adv
        arrays = {
            "images": x,
            "attacked": x_adv,
            "labels": y,
            "predicted_clean": self._answers(x, y, index).logits.argmax(1),
            "predicted_attacked": self._answers(x_adv, y, index).logits.argmax(1),
            "classes": np.array(self.images.classes),
            "eps": np.array(attack.ball.eps if attack is not None else 0.0),
        }
        self._write_arrays(picture.file, arrays)

    def _write_arrays(self, name: str, arrays: Mapping[str, Any]) -> None:
        memory = io.BytesIO()
        values = {
            key: value.cpu().numpy() if isinstance(value, Tensor) else value
            for key, value in arrays.items()
        }
        np.savez(memory, allow_pickle=False, **values)
        self.store.write(name, memory.getvalue())


def _records(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Columns of N values as N dictionaries."""
    values = zip(*columns.values(), strict=True)
    return [dict(zip(columns, row, strict=True)) for row in values]
