"""The stages of one experiment, in order: data, pretraining, probe, evaluation, report.

A stage's folder is named by all that its result depends on: its settings, the images,
and the weights it begins with. A stage that is done is skipped when the experiment is
started again; a changed setting means other folders for exactly the stages it touches.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rrl_dist import __version__
from rrl_dist.core.errors import UserError
from rrl_dist.core.run_directory import StageFolder
from rrl_dist.core.storage import read_json, write_bytes, write_json
from rrl_dist.data.datasets import DataSource, ImageSet
from rrl_dist.data.prepare import prepare_beton
from rrl_dist.evaluate.evaluation import evaluate
from rrl_dist.models.artefact import load_artefact
from rrl_dist.training.build import build
from rrl_dist.training.stage import run_length
from rrl_dist.training.worker import launch

Config = Mapping[str, Any]
SCHEMA = 1
# Settings that do not change what a stage makes.
_WITHOUT_EFFECT = ("log_every", "checkpoint_every")


class Display(Protocol):
    """What a person sees of a running experiment."""

    def stage(self, name: str, *, done: bool) -> None:
        """A stage begins, or is skipped since it is done."""

    def notify(self, line: str) -> None:
        """One line of news."""

    def training(
        self, folder: Path, steps: int, batch_size: int
    ) -> AbstractContextManager[None]:
        """Follow the metrics that a training stage writes into `folder`."""
        ...

    def counting(self, what: str) -> Callable[[int], Callable[[int], None]]:
        """A progress bar: called with a total, it returns what advances it."""
        ...


@dataclass(frozen=True)
class Images:
    """The splits of the data set, by what they hold."""

    fingerprints: Mapping[str, str]
    counts: Mapping[str, int]

    def of(self, *splits: str) -> dict[str, str]:
        """Fingerprints of some splits."""
        return {split: self.fingerprints[split] for split in splits}


class Experiment:
    """One experiment in one run directory.

    Args:
        config: plain resolved configuration: `name`, `seed`, `data`, `model`, `ball`,
            `arms`, `protocol`, `suite`, `evaluate`, `strategy`, `probe`, `loader`,
            `betons`.
        folder: the run directory, held by the caller.
        cluster: as `training.cluster.session` yields it.
        display: what a person sees.
    """

    def __init__(
        self, config: Config, folder: Path, cluster: Config, display: Display
    ) -> None:
        self.config, self.folder = config, folder
        self.cluster, self.display = cluster, display
        self.source: DataSource = build(config["data"])
        self.loader = str(config["loader"])
        self.stages: dict[str, StageFolder] = {}

    def run(self) -> None:
        """Do what is missing, and write `results.json` and `cost.json`."""
        images = self.prepare()
        results: dict[str, Any] = {}
        encoders: dict[str, Path] = {}
        for arm in ordered_arms(self.config["arms"]):
            encoders[arm] = self.pretrain(arm, images, encoders)
        for arm, encoder in encoders.items():
            classifier = self.probe(arm, images, encoder)
            results[arm] = self.evaluate(arm, images, classifier)
        write_json(self.folder / "results.json", self.results(results))
        write_json(self.folder / "cost.json", self.cost())

    def prepare(self) -> Images:
        """Read the images and write the `.beton` files that are missing."""
        self.display.stage("data", done=False)
        self.source.check()
        names = ("pretrain", "train", "val", "test")
        splits = {name: self.source.split(name) for name in names}
        found = Images(
            {name: split.fingerprint for name, split in splits.items()},
            {name: len(split.labels) for name, split in splits.items()},
        )
        counts = ", ".join(f"{found.counts[name]} {name}" for name in names)
        self.display.notify(f"{self.config['data']['name']}: {counts} images")
        if self.loader != "memory":
            self._write_betons(splits["pretrain"], splits["train"])
        return found

    def _write_betons(self, *splits: ImageSet) -> None:
        """Where FFCV is missing and was not insisted on, memory takes over."""
        for images in splits:
            try:
                prepare_beton(
                    Path(self.config["betons"]),
                    images,
                    workers=int(self.cluster["threads"]),
                    progress=self.display.counting(f"writing {images.name}.beton"),
                )
            except UserError as error:
                if self.loader == "ffcv":
                    raise
                self.display.notify(f"images are read from memory: {error}")
                self.loader = "memory"
                return

    def pretrain(self, arm: str, images: Images, encoders: Mapping[str, Path]) -> Path:
        """Train one arm's encoder; returns the folder of the model."""
        own = self.config["arms"][arm]
        teacher = own.get("teacher")
        teacher_folder = None if teacher is None else encoders[teacher]
        stage = {
            "split": "pretrain",
            "model": self.config["model"],
            "objective": own["objective"],
            "views": own["views"],
            "optim": own["optim"],
            "train": own["train"],
            "probe": self.config["probe"],
            "init": None,
            "teacher": None if teacher_folder is None else str(teacher_folder),
        }
        return self._train(f"pretrain-{arm}", stage, images)

    def probe(self, arm: str, images: Images, encoder: Path) -> Path:
        """Put a linear head on a frozen encoder; returns the classifier's folder."""
        protocol = self.config["protocol"]
        stage = {
            "split": "train",
            "model": None,
            "objective": protocol["objective"],
            "views": protocol["views"],
            "optim": protocol["optim"],
            "train": protocol["train"],
            "probe": None,
            "init": str(encoder),
            "teacher": None,
        }
        return self._train(f"probe-{arm}", stage, images)

    def _train(self, name: str, stage: dict[str, Any], images: Images) -> Path:
        stage |= {
            "seed": self.config["seed"],
            "data": self.config["data"],
            "strategy": self.config["strategy"],
        }
        own = images.of(stage["split"])
        folder = self._folder(name, {**_identifying(stage), "images": own})
        if folder.done:
            return folder.path
        length = run_length(
            stage["train"],
            stage["probe"],
            images.counts[stage["split"]],
            int(self.cluster["workers"]),
        )
        stage |= {
            "identity": folder.identity,
            "loader": self.loader,
            "betons": self.config["betons"],
            "threads": self.cluster["threads"],
        }
        following = self.display.training(folder.path, length.steps, length.batch_size)
        with folder.attempt(), following:
            launch(stage, folder.path, self.cluster, self.display.notify)
        return folder.path

    def evaluate(self, arm: str, images: Images, classifier: Path) -> dict[str, Any]:
        """Attack one arm's classifier; returns its numbers."""
        own = self.config["evaluate"]
        fingerprint = {
            "code": __version__,
            "weights": load_artefact(classifier).sha256,
            "images": images.of("test"),
            "limit": own["limit"],
            "ball": self.config["ball"],
            "suite": self.config["suite"],
            "seed": self.config["seed"],
            "gallery": own["gallery"],
        }
        folder = self._folder(f"evaluate-{arm}", fingerprint)
        if not folder.done:
            job = {
                **own,
                "split": "test",
                "data": self.config["data"],
                "classifier": str(classifier),
                "suite": self.config["suite"],
                "ball": self.config["ball"],
                "seed": self.config["seed"],
                "threads": self.cluster["threads"],
                "fingerprint": fingerprint,
            }
            counting = self.display.counting("attacking images")
            with folder.attempt():
                evaluate(job, folder.path, self.cluster, progress=counting)
        self._keep_gallery(arm, folder.path)
        numbers: dict[str, Any] = read_json(folder.path / "results.json")
        return numbers

    def _keep_gallery(self, arm: str, folder: Path) -> None:
        if (folder / "gallery.npz").is_file():
            content = (folder / "gallery.npz").read_bytes()
            write_bytes(self.folder / "gallery" / f"{arm}.npz", content)

    def _folder(self, name: str, settings: Config) -> StageFolder:
        folder = StageFolder.of(self.folder, name, settings)
        self.stages[name] = folder
        self.display.stage(name, done=folder.done)
        return folder

    def results(self, arms: Mapping[str, Any]) -> dict[str, Any]:
        """The whole experiment's `results.json`: no times, paths or worker counts."""
        ball = build(self.config["ball"])
        curve = self.config["suite"]["curve"]
        own = self.config["arms"]
        return {
            "schema": SCHEMA,
            "name": self.config["name"],
            "data": self.config["data"]["name"],
            "split": "test",
            "seed": self.config["seed"],
            "seeds": 1,
            "norm": ball.norm,
            "eps": ball.eps,
            "curve_attack": None if curve is None else curve["attack"],
            "arm_order": list(arms),
            "arms": {
                arm: {
                    "objective": _class_name(own[arm]["objective"]),
                    "backbone": _backbone_name(self.config["model"]),
                    "protocol": self.config["protocol"]["name"],
                    **{k: v for k, v in found.items() if k != "schema"},
                }
                for arm, found in arms.items()
            },
        }

    def cost(self) -> dict[str, Any]:
        """Seconds by stage, and by arm with the teachers that it needed."""
        seconds = {name: folder.seconds for name, folder in self.stages.items()}
        arms = {}
        for arm in self.config["arms"]:
            mine = [f"{kind}-{arm}" for kind in ("pretrain", "probe", "evaluate")]
            lineage = teachers(self.config["arms"], arm)
            mine += [f"pretrain-{teacher}" for teacher in lineage]
            arms[arm] = {"seconds": round(sum(seconds[name] for name in mine), 1)}
        return {
            "stages": {name: {"seconds": value} for name, value in seconds.items()},
            "arms": arms,
            "device": self._device(),
        }

    def _device(self) -> str:
        workers, threads = self.cluster["workers"], self.cluster["threads"]
        each = "GPU" if self.cluster["gpu"] else f"CPU, {threads} threads"
        return f"{workers} x {each}"


def teachers(arms: Mapping[str, Any], arm: str) -> list[str]:
    """The arms that `arm` is distilled from, nearest first.

    Raises:
        UserError: a teacher is unknown, or arms teach each other in a circle.
    """
    found: list[str] = []
    teacher = arms[arm].get("teacher")
    while teacher is not None:
        if teacher not in arms:
            raise UserError(
                f"arms.{arm}.teacher={teacher} is no arm; there are {', '.join(arms)}"
            )
        if teacher in found or teacher == arm:
            raise UserError(f"arms.{arm} is, by way of {teacher}, its own teacher")
        found.append(teacher)
        teacher = arms[teacher].get("teacher")
    return found


def ordered_arms(arms: Mapping[str, Any]) -> Iterator[str]:
    """Arms in their order, each after its teachers."""
    return iter(sorted(arms, key=lambda arm: len(teachers(arms, arm))))


def _identifying(stage: Config) -> dict[str, Any]:
    """What a training stage's result depends on, folders replaced by weights."""
    kept = ("seed", "split", "model", "objective", "views", "optim", "strategy")
    settings = {key: stage[key] for key in kept}
    train = {k: v for k, v in stage["train"].items() if k not in _WITHOUT_EFFECT}
    parents = {
        key: None if stage[key] is None else load_artefact(Path(stage[key])).sha256
        for key in ("init", "teacher")
    }
    return {"code": __version__, **settings, "train": train, **parents}


def _class_name(config: Config) -> str:
    return str(config["_target_"]).rpartition(".")[2]


def _backbone_name(model: Config) -> str:
    backbone = model["backbone"]
    return str(backbone.get("name", _class_name(backbone)))
