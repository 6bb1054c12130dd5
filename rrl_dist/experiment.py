"""The stages of one experiment, in order: data, pretraining, probe, evaluation.

A stage's folder is named by all that its result depends on: its settings, the images,
and the weights it begins with. A stage that is done is skipped when the experiment is
started again; a changed setting means other folders for exactly the stages it touches.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from rrl_dist import __version__
from rrl_dist.core.display import Display
from rrl_dist.core.errors import UserError
from rrl_dist.core.run_directory import StageFolder
from rrl_dist.core.storage import read_json, write_bytes, write_json
from rrl_dist.data.datasets import ImageSet
from rrl_dist.data.prepare import prepare_beton
from rrl_dist.evaluate.comparison import Entry, compare, costs
from rrl_dist.evaluate.evaluation import evaluate
from rrl_dist.evaluate.plan import build_suite
from rrl_dist.models.artefact import copy_artefact, load_artefact
from rrl_dist.stages import identifying, pretrain_stage, probe_stage
from rrl_dist.tasks import Images, Part, cut_tasks
from rrl_dist.training import cluster
from rrl_dist.training.lineage import ordered
from rrl_dist.training.rehearsal import UNTRAINED, rehearse
from rrl_dist.training.stage import run_length
from rrl_dist.training.worker import launch

Config = Mapping[str, Any]


class Experiment:
    """One experiment in one run directory.

    Args:
        config: plain resolved configuration: `name`, `seed`, `data`, `model`, `ball`,
            `arms`, `tasks`, `protocol`, `suite`, `evaluate`, `strategy`, `probe`,
            `loader`, `betons`, `cluster`.
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
        self.threads = int(config["cluster"]["threads"])
        self.workers = int(config["cluster"]["workers"])
        self.loader = str(config["loader"])
        self.whole = Part(None, config["data"])
        self.tasks = cut_tasks(config) or (self.whole,)
        self.images: dict[Part, Images] = {}
        self.stages: dict[str, StageFolder] = {}

    @cached_property
    def cluster(self) -> Config:
        """Where stages run, started when first asked for."""
        return self.start_cluster()

    def run(self) -> None:
        """Do what is missing, and write `results.json` and `cost.json`."""
        self.prepare()
        encoders: dict[str, Path] = {}
        for arm in ordered(self.config["arms"]):
            teacher = self.config["arms"][arm]["teacher"]
            known = None if teacher is None else encoders[teacher]
            encoders[arm] = self.pretrain(arm, known)
        found = {}
        for arm, encoder in encoders.items():
            for part in self.tasks:
                classifier = self.probe(arm, part, encoder)
                found[arm, part.task] = self.evaluate(arm, part, classifier)
        self.summarize(found)

    def prepare(self) -> None:
        """Read the images, and write the `.beton` files that are missing."""
        self.display.stage("data", done=False)
        cluster.check(self.config["cluster"])
        parts = list(dict.fromkeys([self.whole, *self.tasks]))
        for part in parts:
            part.check()
        trained = [split for part in parts for split in self._read(part)]
        self._check_lengths()
        self._rehearse()
        if self.loader != "memory":
            self._write_betons(*trained)

    def _read(self, part: Part) -> list[ImageSet]:
        """Note what a part holds; returns the splits that are trained on."""
        splits = part.read()
        images = self.images[part] = Images.of(splits)
        counts = ", ".join(f"{count} {name}" for name, count in images.counts.items())
        self.display.notify(f"{part.label}: {counts} images")
        arms = self.config["arms"].values() if part is self.whole else ()
        used = {str(arm.get("split", "pretrain")) for arm in arms if "train" in arm}
        if part in self.tasks and "protocol" in self.config:
            used.add("train")
        return [split for name, split in splits.items() if name in used]

    def _check_lengths(self) -> None:
        """A batch that does not fit is told of before the first stage, not the last."""
        key = "arms.{}.train" if "protocol" in self.config else "train"
        for name, arm in self.config["arms"].items():
            if "train" in arm:
                count = self.images[self.whole].counts[arm.get("split", "pretrain")]
                own = key.format(name)
                run_length(arm["train"], None, count, self.workers, key=own)
        for part in self.tasks if "protocol" in self.config else ():
            own, count = self.config["protocol"], self.images[part].counts["train"]
            with part.naming():
                key = "protocol.train"
                run_length(own["train"], None, count, self.workers, key=key)

    def _rehearse(self) -> None:
        """What cannot run is told now, not when its turn has come."""
        if "suite" in self.config:
            build_suite(self.config["suite"], self.config["ball"], seed=0)
        arms = [arm for arm, own in self.config["arms"].items() if "train" in own]
        for arm in arms:
            own = self.config["arms"][arm]
            teacher = UNTRAINED if own["teacher"] else self.config.get("teacher")
            stage = pretrain_stage(self.config, arm, teacher)
            self._rehearse_one(f"pretrain-{arm}", stage, self.whole)
        # A model from a file is not built from its own description.
        for part in self.tasks if arms and "protocol" in self.config else ():
            stage = probe_stage({**self.config, "data": part.data}, UNTRAINED)
            own = {**stage, "model": self.config["model"]}
            self._rehearse_one(part.entry("probe"), own, part)

    def _rehearse_one(self, name: str, stage: Config, part: Part) -> None:
        size, classes = part.source.size, part.source.num_classes
        rehearse(name, stage, size=size, num_classes=classes, workers=self.workers)

    def _write_betons(self, *splits: ImageSet) -> None:
        """Where FFCV is missing and was not insisted on, memory takes over."""
        for images in splits:
            try:
                prepare_beton(
                    Path(self.config["betons"]),
                    images,
                    workers=self.threads,
                    progress=self.display.counting(f"writing {images.name}.beton"),
                    notify=self.display.notify,
                )
            except UserError as error:
                if self.loader == "ffcv":
                    raise
                self.display.notify(f"images are read from memory: {error}")
                self.loader = "memory"
                return

    def pretrain(self, arm: str, teacher: Path | None) -> Path:
        """Train one arm's encoder; returns the folder of the model."""
        stage = pretrain_stage(self.config, arm, teacher)
        model = self._train(f"pretrain-{arm}", stage, self.whole)
        copy_artefact(model, self.folder / "models" / arm)
        return model

    def probe(self, arm: str, part: Part, encoder: Path) -> Path:
        """Put a linear head on a frozen encoder; returns the classifier's folder."""
        stage = probe_stage({**self.config, "data": part.data}, encoder)
        model = self._train(f"probe-{part.entry(arm)}", stage, part)
        copy_artefact(model, self.folder / "classifiers" / part.entry(arm))
        return model

    def _train(self, name: str, stage: dict[str, Any], part: Part) -> Path:
        split, images = stage["split"], self.images[part]
        # Pixels of a JPEG are not the decoded originals that memory gives.
        jpg = self.loader != "memory" and images.stored[split] == "jpg"
        pixels = {"images": images.fingerprints[split]}
        pixels["stored"] = "jpg" if jpg else "exact"
        settings = {**identifying(stage), **pixels}
        folder = self._folder(name, settings)
        if folder.done:
            return folder.path
        count = images.counts[split]
        length = run_length(stage["train"], stage["probe"], count, self.workers)
        stage |= {"identity": folder.identity, "loader": self.loader}
        following = self.display.training(folder.path, length.steps, length.batch_size)
        where = self.cluster
        with folder.attempt(), following:
            launch(stage, folder.path, where, self.display.notify)
        return folder.path

    def evaluate(self, arm: str, part: Part, classifier: Path) -> dict[str, Any]:
        """Attack one arm's classifier; returns its numbers."""
        own, artefact = self.config["evaluate"], load_artefact(classifier)
        if artefact.classes != part.source.class_names:
            raise UserError(
                f"{classifier} tells {len(artefact.classes)} classes apart that are "
                f"not those of {part.source.name}; set data= and data.classes="
            )
        fingerprint = {
            "code": __version__,
            "weights": artefact.sha256,
            "images": self.images[part].fingerprints["test"],
            "limit": own["limit"],
            **{key: self.config[key] for key in ("ball", "suite", "seed")},
        }
        folder = self._folder(f"evaluate-{part.entry(arm)}", fingerprint)
        pictures = folder.path / f"gallery-{own['gallery']}.npz"
        if not folder.done or (own["gallery"] and not pictures.is_file()):
            self._attack(folder, part, classifier)
        if pictures.is_file():
            kept = self.folder / "gallery" / f"{part.entry(arm)}.npz"
            write_bytes(kept, pictures.read_bytes())
        numbers: dict[str, Any] = read_json(folder.path / "results.json")
        return numbers

    def _attack(self, folder: StageFolder, part: Part, classifier: Path) -> None:
        job = {
            **self.config["evaluate"],
            **{key: self.config[key] for key in ("suite", "ball", "seed")},
            "data": part.data,
            "split": "test",
            "classifier": str(classifier),
            "threads": self.threads,
            "fingerprint": folder.settings,
        }
        counting = self.display.counting("attacking images")
        where = self.cluster
        with folder.attempt():
            evaluate(job, folder.path, where, progress=counting)

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
        write_json(self.folder / "results.json", compare(self.config, found))

    def _device(self) -> str | None:
        """In words; as it was noted before where this time nothing had to run."""
        if "cluster" not in self.__dict__:
            before = self.folder / "cost.json"
            return read_json(before)["device"] if before.is_file() else None
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        each = "GPU" if self.cluster["gpu"] else f"CPU, {threads}"
        return f"{self.cluster['workers']} x {each}"
