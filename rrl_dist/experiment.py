"""The stages of one experiment, in order: data, pretraining, probe, evaluation.

A stage's folder is named by all that its result depends on: its settings, the images,
and the weights it begins with. A stage that is done is skipped when the experiment is
started again; a changed setting means other folders for exactly the stages it touches.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rrl_dist.core.display import Display
from rrl_dist.core.errors import UserError
from rrl_dist.core.run_directory import StageFolder
from rrl_dist.core.storage import read_json, write_bytes, write_json
from rrl_dist.evaluate.comparison import compare, costs
from rrl_dist.evaluate.entries import Entry
from rrl_dist.evaluate.identity import evaluation_identity
from rrl_dist.evaluate.leaderboard import write_entry
from rrl_dist.evaluate.rehearsal import rehearse_subject
from rrl_dist.evaluate.source import Source
from rrl_dist.evaluate.stage import is_done, picture_of, run_stage
from rrl_dist.evaluate.subject import load_subject
from rrl_dist.judges import Judge
from rrl_dist.models.artefact import copy_artefact
from rrl_dist.preparation import Preparation
from rrl_dist.stages import given_teacher, identifying, pretrain_stage
from rrl_dist.tasks import Images, Part
from rrl_dist.training import cluster
from rrl_dist.training.launch import launch
from rrl_dist.training.length import run_length
from rrl_dist.training.lineage import ordered
from rrl_dist.training.node_data import check_data, expected

Config = Mapping[str, Any]


class Experiment:
    """One experiment in one run directory.

    Args:
        config: plain resolved configuration: `name`, `seed`, `data`, `model`, `ball`,
            `arms`, `tasks`, `protocol`, `suite`, `evaluate`, `strategy`, `probe`,
            `loader`, `betons`, `cluster`, and perhaps `protocols` and `head_seeds`.
            Without `protocol`, classifiers are there already; `encoder` is the folder
            of one that gets a head, or None.
        folder: the run directory, held by the caller.
        start_cluster: as `training.cluster.session` yields it; called when the first
            stage that is not done needs it.
        display: what a person sees.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        start_cluster: Callable[[], Config],
        display: Display,
    ) -> None:
        self.config, self.folder = config, folder
        self.start_cluster, self.display = start_cluster, display
        self.prepared = Preparation(config, folder, display)
        self.stages: dict[str, StageFolder] = {}

    @cached_property
    def cluster(self) -> Config:
        """Where stages run, started when first asked for; all of it has the data."""
        found = self.start_cluster()
        read = [(part.data, own.fingerprints) for part, own in self.images.items()]
        betons = list(self.prepared.betons.values())
        check_data(found, read, betons, self.display.notify)
        return found

    def run(self) -> None:
        """Do what is missing, and write `results.json` and `cost.json`."""
        self.prepare()
        encoders: dict[str, Path] = {}
        for arm in ordered(self.config["arms"]):
            teacher = self.config["arms"][arm]["teacher"]
            known = given_teacher(self.config, arm)
            encoders[arm] = self.pretrain(arm, encoders[teacher] if teacher else known)
        found, pairs = {}, [(arm, judge) for arm in encoders for judge in self.judges]
        for arm, judge in pairs if self.prepared.among_arms else ():
            self.probe(arm, judge, encoders[arm])
        for arm, judge in pairs:
            source = Source(str(self.probe(arm, judge, encoders[arm])))
            found[judge.entry(arm)] = self.evaluate(arm, judge, source)
        self.summarize(found)

    def prepare(self) -> None:
        """Read the images, and write the `.beton` files that are missing."""
        self.display.stage("data", done=False)
        cluster.check(self.config["cluster"])
        self.prepared.do()

    @property
    def whole(self) -> Part:
        """The data set that arms are trained on."""
        return self.prepared.whole

    @property
    def images(self) -> Mapping[Part, Images]:
        """What has been read, by part."""
        return self.prepared.images

    @property
    def judges(self) -> tuple[Judge, ...]:
        """All that each arm is judged by."""
        return self.prepared.judges

    def pretrain(self, arm: str, teacher: Path | None) -> Path:
        """Train one arm's encoder; returns the folder of the model."""
        stage = pretrain_stage(self.config, arm, teacher)
        model = self._train(f"pretrain-{arm}", stage, self.whole)
        copy_artefact(model, self.folder / "models" / arm)
        return model

    def probe(self, arm: str, judge: Judge, encoder: Path) -> Path:
        """Put a head on an encoder by a protocol; returns the classifier's folder."""
        stage, name = judge.stage(self.config, encoder), judge.entry(arm).name
        model = self._train(f"probe-{name}", stage, judge.part)
        copy_artefact(model, self.folder / "classifiers" / name)
        return model

    def _train(self, name: str, stage: dict[str, Any], part: Part) -> Path:
        split, images = stage["split"], self.images[part]
        # Pixels of a JPEG are not the decoded originals that memory gives.
        jpg = self.prepared.loader != "memory" and images.stored[split] == "jpg"
        pixels = {"images": images.fingerprints[split]}
        pixels["stored"] = "jpg" if jpg else "exact"
        settings = {**identifying(stage), **pixels}
        folder = self._folder(name, settings)
        if folder.done:
            return folder.path
        count = images.counts[split]
        length = run_length(
            stage["train"], stage["probe"], count, self.prepared.workers
        )
        stage |= {"identity": folder.identity, "loader": self.prepared.loader}
        following = self.display.training(folder.path, length.steps, length.batch_size)
        where, read = self.cluster, images.fingerprints[split]
        stage["expected"] = expected(where, read, self.prepared.betons.get(read))
        with folder.attempt(), following:
            launch(stage, folder.path, where, self.display.notify)
        return folder.path

    def evaluate(self, arm: str, judge: Judge, source: Source) -> dict[str, Any]:
        """Attack one arm's classifier; returns its numbers."""
        part, name = judge.part, judge.entry(arm).name
        surrogates = self.prepared.surrogates(judge)
        source = replace(source, classes=part.source.num_classes)
        own, subject = self.config["evaluate"], load_subject(source)
        if subject.classes not in (None, part.source.class_names):
            raise UserError(
                f"{source.path} tells {len(subject.classes)} classes apart that are "
                f"not those of {part.source.name}; set data= and data.classes="
            )
        fingerprint = evaluation_identity(
            self.config,
            weights=subject.sha256,
            images=self.images[part].fingerprints,
            surrogates=surrogates,
        )
        folder = self._folder(f"evaluate-{name}", fingerprint)
        if not is_done(folder, own):
            for line in rehearse_subject(source, subject, self.prepared.few[part]):
                self.display.notify(line)
            run_stage(
                self.config,
                folder,
                data=part.data,
                source=replace(source, sha256=subject.sha256),
                surrogates=surrogates,
                cluster=lambda: self.cluster,
                display=self.display,
            )
        pictures = picture_of(folder, own)
        if pictures.is_file():
            kept = self.folder / "gallery" / f"{name}.npz"
            write_bytes(kept, pictures.read_bytes())
        return dict(read_json(folder.path / "results.json"))

    def _folder(self, name: str, settings: Config) -> StageFolder:
        folder = StageFolder.of(self.folder, name, settings)
        self.stages[name] = folder
        self.display.stage(name, done=folder.done)
        return folder

    def summarize(self, found: Mapping[Entry, Config]) -> None:
        """Write `results.json` and `cost.json` of what was evaluated."""
        seconds = {name: folder.seconds for name, folder in self.stages.items()}
        cost = costs(self.config["arms"], found, seconds, self._device())
        write_json(self.folder / "cost.json", cost)
        results = compare(self.config, found)
        write_json(self.folder / "results.json", results)
        counts = {part.task: self.images[part].counts for part in self.prepared.tasks}
        for entry in found:
            test, notify = counts[entry.task].get("test", 0), self.display.notify
            write_entry(self.folder, results, entry.name, images=test, notify=notify)

    def _device(self) -> str | None:
        """In words; as it was noted before where this time nothing had to run."""
        if "cluster" not in self.__dict__:
            before = self.folder / "cost.json"
            return read_json(before)["device"] if before.is_file() else None
        threads = (
            "1 thread"
            if self.prepared.threads == 1
            else f"{self.prepared.threads} threads"
        )
        each = "GPU" if self.cluster["gpu"] else f"CPU, {threads}"
        return f"{self.cluster['workers']} x {each}"
