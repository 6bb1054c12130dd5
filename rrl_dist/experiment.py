"""The stages of one experiment, in order: data, pretraining, probe, evaluation.

A stage's folder is named by all that its result depends on: its settings, the images,
and the weights it begins with. A stage that is done is skipped when the experiment is
started again; a changed setting means other folders for exactly the stages it touches.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from rrl_dist import __version__
from rrl_dist.core.display import Display
from rrl_dist.core.errors import UserError
from rrl_dist.core.run_directory import StageFolder
from rrl_dist.core.storage import read_json, write_bytes, write_json
from rrl_dist.data.datasets import DataSource, ImageSet
from rrl_dist.data.prepare import prepare_beton, stored_as
from rrl_dist.evaluate.comparison import compare, costs
from rrl_dist.evaluate.evaluation import evaluate
from rrl_dist.evaluate.plan import build_suite
from rrl_dist.models.artefact import copy_artefact, load_artefact
from rrl_dist.training import cluster
from rrl_dist.training.build import build
from rrl_dist.training.lineage import ordered
from rrl_dist.training.rehearsal import UNTRAINED, rehearse
from rrl_dist.training.stage import run_length
from rrl_dist.training.worker import launch

Config = Mapping[str, Any]
SPLITS = ("pretrain", "train", "val", "test")
# What a training stage's result depends on, folders of models aside.
_IDENTIFYING = ("seed", "split", "model", "objective", "views", "optim")
_WITHOUT_EFFECT = ("log_every", "checkpoint_every", "micro_batch")


@dataclass(frozen=True)
class Images:
    """The splits of the data set: what they hold, by fingerprint, and how many."""

    fingerprints: Mapping[str, str]
    counts: Mapping[str, int]


class Experiment:
    """One experiment in one run directory.

    Args:
        config: plain resolved configuration: `name`, `seed`, `data`, `model`, `ball`,
            `arms`, `protocol`, `suite`, `evaluate`, `strategy`, `probe`, `loader`,
            `betons`, `cluster`.
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
        self.stored = "exact"
        self.source: DataSource = build(config["data"])
        self.stages: dict[str, StageFolder] = {}

    @cached_property
    def cluster(self) -> Config:
        """Where stages run, started when first asked for."""
        return self.start_cluster()

    def run(self) -> None:
        """Do what is missing, and write `results.json` and `cost.json`."""
        images = self.prepare()
        encoders: dict[str, Path] = {}
        for arm in ordered(self.config["arms"]):
            teacher = self.config["arms"][arm]["teacher"]
            known = None if teacher is None else encoders[teacher]
            encoders[arm] = self.pretrain(arm, images, known)
        found = {}
        for arm, encoder in encoders.items():
            found[arm] = self.evaluate(arm, images, self.probe(arm, images, encoder))
        self.summarize(found)

    def prepare(self) -> Images:
        """Read the images, and write the `.beton` files that are missing."""
        self.display.stage("data", done=False)
        cluster.check(self.config["cluster"])
        self.source.check()
        splits = {name: self.source.split(name) for name in SPLITS}
        found = Images(
            {name: split.fingerprint for name, split in splits.items()},
            {name: len(split) for name, split in splits.items()},
        )
        counts = ", ".join(f"{count} {name}" for name, count in found.counts.items())
        self.display.notify(f"{self.source.name}: {counts} images")
        self._check_lengths(found)
        self._rehearse()
        if self.loader != "memory":
            self._write_betons(splits["pretrain"], splits["train"])
        if self.loader != "memory" and stored_as(splits["pretrain"]) == "jpg":
            # Those pixels are not the decoded originals that memory would give.
            self.stored = "jpg"
        return found

    def _check_lengths(self, images: Images) -> None:
        """A batch that does not fit is told of before the first stage, not the last."""
        key = "arms.{}.train" if "protocol" in self.config else "train"
        for name, arm in self.config["arms"].items():
            if "train" in arm:
                count, own = images.counts["pretrain"], key.format(name)
                run_length(arm["train"], None, count, self.workers, key=own)
        if "protocol" in self.config:
            train, count = self.config["protocol"]["train"], images.counts["train"]
            run_length(train, None, count, self.workers, key="protocol.train")

    def _rehearse(self) -> None:
        """What cannot run is told now, not when its turn has come."""
        if "suite" in self.config:
            build_suite(self.config["suite"], self.config["ball"], seed=0)
        stages = {}
        for arm, own in self.config["arms"].items():
            if "train" in own:
                teacher = UNTRAINED if own["teacher"] else self.config.get("teacher")
                stages[f"pretrain-{arm}"] = pretrain_stage(self.config, arm, teacher)
        # A model from a file is not built from its own description.
        if stages and "protocol" in self.config:
            stage = probe_stage(self.config, UNTRAINED)
            stages["probe"] = {**stage, "model": self.config["model"], "teacher": None}
        size, classes = self.source.size, self.source.num_classes
        for name, stage in stages.items():
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

    def pretrain(self, arm: str, images: Images, teacher: Path | None) -> Path:
        """Train one arm's encoder; returns the folder of the model."""
        stage = pretrain_stage(self.config, arm, teacher)
        model = self._train(f"pretrain-{arm}", stage, images)
        copy_artefact(model, self.folder / "models" / arm)
        return model

    def probe(self, arm: str, images: Images, encoder: Path) -> Path:
        """Put a linear head on a frozen encoder; returns the classifier's folder."""
        stage = probe_stage(self.config, encoder)
        model = self._train(f"probe-{arm}", stage, images)
        copy_artefact(model, self.folder / "classifiers" / arm)
        return model

    def _train(self, name: str, stage: dict[str, Any], images: Images) -> Path:
        split = stage["split"]
        pixels = {"images": images.fingerprints[split], "stored": self.stored}
        settings = {**_identifying(stage), **pixels}
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

    def evaluate(self, arm: str, images: Images, classifier: Path) -> dict[str, Any]:
        """Attack one arm's classifier; returns its numbers."""
        own, artefact = self.config["evaluate"], load_artefact(classifier)
        if artefact.classes != self.source.class_names:
            raise UserError(
                f"{classifier} tells {len(artefact.classes)} classes apart that are "
                f"not those of {self.source.name}; set data= and data.classes="
            )
        fingerprint = {
            "code": __version__,
            "weights": artefact.sha256,
            "images": images.fingerprints["test"],
            "limit": own["limit"],
            "ball": self.config["ball"],
            "suite": self.config["suite"],
            "seed": self.config["seed"],
        }
        folder = self._folder(f"evaluate-{arm}", fingerprint)
        pictures = folder.path / f"gallery-{own['gallery']}.npz"
        if not folder.done or (own["gallery"] and not pictures.is_file()):
            shared = ("data", "suite", "ball", "seed")
            job = {
                **own,
                **{key: self.config[key] for key in shared},
                "split": "test",
                "classifier": str(classifier),
                "threads": self.threads,
                "fingerprint": fingerprint,
            }
            counting = self.display.counting("attacking images")
            where = self.cluster
            with folder.attempt():
                evaluate(job, folder.path, where, progress=counting)
        if pictures.is_file():
            kept = self.folder / "gallery" / f"{arm}.npz"
            write_bytes(kept, pictures.read_bytes())
        numbers: dict[str, Any] = read_json(folder.path / "results.json")
        return numbers

    def _folder(self, name: str, settings: Config) -> StageFolder:
        folder = StageFolder.of(self.folder, name, settings)
        self.stages[name] = folder
        self.display.stage(name, done=folder.done)
        return folder

    def summarize(self, found: Mapping[str, Config]) -> None:
        """Write `results.json` and `cost.json` of the evaluated arms."""
        seconds = {name: folder.seconds for name, folder in self.stages.items()}
        cost = costs(self.config["arms"], seconds, self._device())
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


def pretrain_stage(config: Config, arm: str, teacher: Path | None) -> dict[str, Any]:
    """Configuration of an arm's training stage, as `train_stage` takes it."""
    own = config["arms"][arm]
    return {
        **_common(config),
        **{key: own[key] for key in ("objective", "views", "optim", "train")},
        "split": own.get("split", "pretrain"),
        "model": config["model"],
        "probe": config["probe"],
        "init": None,
        "teacher": None if teacher is None else str(teacher),
    }


def probe_stage(config: Config, encoder: Path) -> dict[str, Any]:
    """Configuration of the stage that puts a head on an encoder."""
    own = config["protocol"]
    return {
        **_common(config),
        **{key: own[key] for key in ("objective", "views", "optim", "train")},
        "split": "train",
        "model": None,
        "probe": None,
        "init": str(encoder),
        "teacher": None,
    }


def _common(config: Config) -> dict[str, Any]:
    keys = ("seed", "data", "strategy", "loader", "betons")
    return {
        **{key: config[key] for key in keys},
        "threads": int(config["cluster"]["threads"]),
    }


def _identifying(stage: Config) -> dict[str, Any]:
    """What a training stage's result depends on, folders replaced by weights."""
    train = {k: v for k, v in stage["train"].items() if k not in _WITHOUT_EFFECT}
    parents = {
        key: None if stage[key] is None else load_artefact(Path(stage[key])).sha256
        for key in ("init", "teacher")
    }
    settings = {key: stage[key] for key in _IDENTIFYING}
    # The rest of a strategy, as the number of workers, changes last digits only.
    settings["precision"] = stage["strategy"]["precision"]
    return {"code": __version__, **settings, "train": train, **parents}
