"""One evaluation: a classifier, a suite of attacks, rows, and the numbers of them."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from rrl_dist.attacks.micro_batches import call_size
from rrl_dist.attacks.passes import Passes
from rrl_dist.core.confidence import ConfidenceSequence
from rrl_dist.core.stopping import StopRule, parse_stop
from rrl_dist.core.store import Store
from rrl_dist.evaluate.corruption import is_imagenet
from rrl_dist.evaluate.corruption_files import files_of
from rrl_dist.evaluate.costs import Costs, duration, measured_pass, told
from rrl_dist.evaluate.crew import Crew, ThisProcess, drive
from rrl_dist.evaluate.grid import ATOM, CLEAN, Link, Unit
from rrl_dist.evaluate.images import chosen_images, pixels
from rrl_dist.evaluate.ledger import Ledger
from rrl_dist.evaluate.plan import (
    Information,
    Picture,
    Survey,
    Task,
    build_suite,
)
from rrl_dist.evaluate.pool import RayCrew
from rrl_dist.evaluate.robust import Done, Evaluator, Job
from rrl_dist.evaluate.schedule import Cut, Schedule, Work
from rrl_dist.evaluate.status import Status, status_of
from rrl_dist.evaluate.subject import Models
from rrl_dist.evaluate.summary import Stop, summarize
from rrl_dist.evaluate.verdict.judge import told_lines
from rrl_dist.evaluate.verdict.planned import judged, planned
from rrl_dist.evaluate.vulnerability import told as told_of_information
from rrl_dist.training.build import build
from rrl_dist.training.cluster import places
from rrl_dist.training.devices import own_device

SURVEY = Survey()
NORMAL, WORST = Information(attacked=False), Information(attacked=True)
Watch = Callable[[Status], None]


_GUESSING = (
    "{:.1f} % of the images themselves are right, as by guessing: see that the model "
    "takes RGB images in [0, 1] and normalizes them as it was trained (mean=, std=), "
    "and that classes are numbered alike"
)
_FEW = 30  # samples that say too little


def like_guessing(clean: Mapping[str, Any], classes: int) -> bool:
    """Whether an accuracy is not told apart from that of guessing.

    Args:
        clean: a share with its interval and count.
        classes: that there are.
    """
    return bool(clean["count"] >= _FEW and clean["low"] <= 1 / classes)


class Evaluation:
    """What is to be done of an evaluation, and what is.

    Args:
        job: see `Evaluator`; also `fingerprint` (all that the rows depend on),
            `has_encoder`, and of `evaluate`'s settings `gallery` (a number of images),
            `unit_seconds`, `unit_atoms`, `stop_when`, `stop_every`, and what
            `planned` takes for a verdict.
        store: the evaluation's folder.
        cluster: as `training.cluster.session` yields it.
        models: makes the models, when the first worker needs them.
        generation: of the lease under which this happens.
    """

    def __init__(
        self,
        job: Job,
        store: Store,
        cluster: Mapping[str, Any],
        *,
        models: Callable[[], Models],
        generation: int = 0,
    ) -> None:
        self.job, self.store, self.cluster = job, store, cluster
        self.generation, self._make_models = generation, models
        self._stack = ExitStack()  # ends the workers
        # Nothing is attacked here: their names are all that the plan needs.
        named = {name: nn.Identity() for name in job.get("surrogates", {})}
        self.suite = build_suite(
            job["suite"], job["ball"], seed=int(job["seed"]), surrogates=named
        )
        images = chosen_images(job)
        self.names = images.classes
        self.samples, self.classes = len(images), len(images.classes)
        self.read = images.fingerprint
        self.files = files_of(job["suite"])
        self.probing = planned(
            job, self.suite, samples=self.samples, classes=self.classes
        )
        chains = self.suite.chains
        self.ledger = Ledger(store, chains, images.index)
        self.schedule = Schedule(
            # Those of many attacks in turn first: what others do fills the gaps.
            sorted(chains, key=len, reverse=True),
            self.samples,
            workers=places(cluster),
            cut=self._cut(),
            tasks=[task for task in self.tasks if not store.exists(task.file)],
        )
        self.costs = Costs(self.suite, chains, classes=self.classes)
        self.passes: dict[Link, Passes] = {}
        self.rule: StopRule | None = None
        if job.get("stop_when") is not None:
            self.rule = parse_stop(str(job["stop_when"]))
        level = 0.95 if self.rule is None else self.rule.level
        self._sequence = ConfidenceSequence(self.samples, level=level)

    def _cut(self) -> Cut:
        atoms = self.job.get("unit_atoms")
        call = call_size(own_device(self.cluster), self.job["suite"]["micro_batch"])
        return Cut(
            seconds=float(self.job.get("unit_seconds", 30.0)),
            least=max(ATOM, call),
            call=call,
            atoms=None if atoms is None else int(atoms),
        )

    @property
    def tasks(self) -> list[Task]:
        """What is done beside the units, the longest first."""
        found: list[Task] = []
        if self.suite.estimation is not None:
            found += [WORST, NORMAL]
        if self.probing is not None:
            found.append(self.probing)
        if self.job["has_encoder"]:
            found.append(SURVEY)
        if int(self.job["gallery"]) > 0:
            found.append(Picture(self.suite.shown, int(self.job["gallery"])))
        return found

    def run(self, watch: Watch, notify: Callable[[str], None]) -> dict[str, Any]:
        """Do what is missing, and write `results.json`.

        Args:
            watch: told how far it is, at the start and after each unit.
            notify: told what a person should know, a line each.

        Returns:
            what `results.json` holds.

        Raises:
            UserError: the folder holds another evaluation, workers are lost one after
                another, or a mistake that a worker found.
        """
        self.ledger.claim(self.job["fingerprint"])
        for line in self.ledger.restore(self.schedule):
            notify(line)
        if not self.schedule.done:
            notify(self._predicted())
            if self.schedule.workers < int(self.cluster["workers"]):
                notify(self._short())
        watch(status_of(self.schedule, self.costs))
        stop, begin = None, time.monotonic()
        with self._stack:
            for limit in self._looks():
                self.schedule.limit = limit
                self._work(watch)
                stop = self._stop(limit)
                if stop is not None:
                    break
        cost = told(self.schedule, self.passes, wall=time.monotonic() - begin)
        self.store.write_json("units.json", cost)
        spent = duration(60 * cost["device_minutes"], of="device-")
        notify(f"took {spent} in all attempts")
        results = self._summarize(stop)
        for line in told_lines(results["verdict"]):
            notify(line)
        if like_guessing(results["components"][CLEAN], self.classes):
            notify(_GUESSING.format(100 * results["components"][CLEAN]["value"]))
        return results

    def _predicted(self) -> str:
        """What is left to do, before it begins."""
        device = own_device(self.cluster)
        if device.type == "cpu" or torch.cuda.is_available():
            size = call_size(device, self.job["suite"]["micro_batch"])
            images = chosen_images(self.job)
            x = pixels(images, np.arange(min(size, self.samples))).to(device)
            subject = self.models.subject.to(device)
            threads = int(self.job["threads"])
            self.costs.pass_seconds = measured_pass(
                subject, x, size=size, cores=threads
            )
            subject.cpu()
        return self.costs.left(self.schedule).told(self.schedule.workers)

    def _short(self) -> str:
        """That it begins with fewer workers than were asked for."""
        return (
            f"cluster.workers={self.cluster['workers']}, but there is room for "
            f"{self.schedule.workers} at present; the others begin when nodes come"
        )

    @cached_property
    def models(self) -> Models:
        """Made once, when they are first needed."""
        return self._make_models()

    def _looks(self) -> Sequence[int]:
        """Atoms that are to be done before each look at the rule."""
        last = self.schedule.limit
        if self.rule is None:
            return [last]
        every = max(int(self.job.get("stop_every", 256)) // ATOM, 1)
        return [*range(every, last, every), last]

    def _stop(self, limit: int) -> Stop | None:
        """The end, if the rule is met before all samples are attacked."""
        drawn = min(limit * ATOM, self.samples)
        if self.rule is None or drawn == self.samples:
            return None
        wrong = [self.schedule.wrong[name][:drawn] for name in self.suite.full]
        right = drawn - int(np.logical_or.reduce(wrong).sum())
        worst = self._sequence.look(right, drawn)
        return Stop(self.rule, worst, self.samples) if self.rule.met(worst) else None

    @cached_property
    def _crew(self) -> Crew:
        if self.cluster["kind"] == "debug":
            return ThisProcess(self._evaluator)
        crew = RayCrew(
            {**self.job, "read": self.read, "files": self.files},
            self.models,
            self.store,
            self.cluster,
            generation=self.generation,
        )
        self._stack.callback(crew.close)
        return crew

    def _evaluator(self) -> Evaluator:
        return Evaluator(self.job, self.models, self.store, own_device(self.cluster))

    def _work(self, watch: Watch) -> None:
        if self.schedule.done:
            return

        def heard(work: Work, done: Done) -> None:
            if isinstance(work, Unit):
                own = self.passes.setdefault(work.link, Passes())
                own.forward += done.passes.forward
                own.backward += done.passes.backward
                watch(status_of(self.schedule, self.costs))

        patience = int(self.cluster.get("max_failures", 0))
        drive(self.schedule, self._crew, heard=heard, patience=patience)

    def _summarize(self, stop: Stop | None) -> dict[str, Any]:
        survey = None
        if self.job["has_encoder"]:
            survey = self.store.read_json(SURVEY.file)
        if stop is not None:
            self.ledger.drawn = stop.worst.count
        results = summarize(
            self.ledger,
            self.suite,
            survey,
            self._information(),
            stop,
            imagenet=is_imagenet(self.names),
        )
        results["verdict"] = judged(self.probing, self.store, self.ledger, self.suite)
        self.ledger.write_samples()
        self.store.write_json("results.json", results)
        return results

    def _information(self) -> dict[str, Any] | None:
        """Of what two `Information` tasks leave; None where the suite has none."""
        if self.suite.estimation is None:
            return None
        normal, worst = (
            self.store.read_json(task.file)["estimates"] for task in (NORMAL, WORST)
        )
        return told_of_information(
            normal,
            worst,
            estimation=self.suite.estimation,
            eps=build(self.job["ball"]).eps,
            classes=self.classes,
        )
