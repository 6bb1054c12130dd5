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
from rrl_dist.data.datasets import ImageSet
from rrl_dist.data.prepare import prepare_betons
from rrl_dist.evaluate.comparison import Entry, compare, costs
from rrl_dist.evaluate.identity import check_counts, evaluation_identity, tested_splits
from rrl_dist.evaluate.images import Images as EvaluatedImages
from rrl_dist.evaluate.leaderboard import write_entry
from rrl_dist.evaluate.rehearsal import rehearse_subject, some_images
from rrl_dist.evaluate.source import Source
from rrl_dist.evaluate.stage import is_done, picture_of, run_stage
from rrl_dist.evaluate.subject import load_subject
from rrl_dist.evaluate.surrogates import ARMS, checked_surrogates, named_surrogates
from rrl_dist.models.artefact import copy_artefact
from rrl_dist.stages import given_teacher, identifying, pretrain_stage, probe_stage
from rrl_dist.tasks import Images, Part, attacked_split, cut_tasks
from rrl_dist.training import cluster
from rrl_dist.training.anomaly import anomaly_mode
from rrl_dist.training.checkpoint_disk import Need, check_disk
from rrl_dist.training.launch import launch
from rrl_dist.training.length import run_length
from rrl_dist.training.lineage import ordered
from rrl_dist.training.node_data import check_data, expected
from rrl_dist.training.rehearsal import UNTRAINED, rehearse

Config = Mapping[str, Any]


class Experiment:
    """One experiment in one run directory.

    Args:
        config: plain resolved configuration: `name`, `seed`, `data`, `model`, `ball`,
            `arms`, `tasks`, `protocol`, `suite`, `evaluate`, `strategy`, `probe`,
            `loader`, `betons`, `cluster`. Without `protocol`, classifiers are there
            already; `encoder` is the folder of one that gets a head, or None.
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
        self.betons: dict[str, Path] = {}  # by fingerprint of the split
        self.few: dict[Part, EvaluatedImages] = {}
        self.surrogates: dict[Part, dict[str, Source]] = {}
        self.stages: dict[str, StageFolder] = {}
        self.disk: list[Need] = []  # for each stage that trains

    @cached_property
    def cluster(self) -> Config:
        """Where stages run, started when first asked for; all of it has the data."""
        found = self.start_cluster()
        read = [(part.data, own.fingerprints) for part, own in self.images.items()]
        check_data(found, read, list(self.betons.values()), self.display.notify)
        return found

    def run(self) -> None:
        """Do what is missing, and write `results.json` and `cost.json`."""
        self.prepare()
        encoders: dict[str, Path] = {}
        for arm in ordered(self.config["arms"]):
            teacher = self.config["arms"][arm]["teacher"]
            known = given_teacher(self.config, arm)
            encoders[arm] = self.pretrain(arm, encoders[teacher] if teacher else known)
        found, pairs = {}, [(arm, part) for arm in encoders for part in self.tasks]
        for arm, part in pairs if self._among_arms else ():
            self.probe(arm, part, encoders[arm])
        for arm, part in pairs:
            source = Source(str(self.probe(arm, part, encoders[arm])))
            found[arm, part.task] = self.evaluate(arm, part, source)
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
        if self.loader != "memory" and trained:
            folder, needed = Path(self.config["betons"]), self.loader == "ffcv"
            self.betons = prepare_betons(
                folder, trained, self.display, workers=self.threads, needed=needed
            )
            self.loader = self.loader if self.betons else "memory"

    def _read(self, part: Part) -> list[ImageSet]:
        """Note what a part holds; returns the splits that are trained on."""
        only_tested = "protocol" not in self.config and not self._trained_arms()
        attacked = attacked_split(self.config)
        read = tested_splits(self.config["suite"], attacked) if only_tested else None
        splits = part.read(read, attacked=attacked)
        part.check_files(self.config.get("suite", {}), splits[attacked], attacked)
        self.few[part] = some_images(splits[attacked])
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
            for part in self.tasks:
                with part.naming():
                    notes = check_counts(self.config, self.images[part].counts)
                for line in notes:
                    self.display.notify(line)
            if (
                self.config["suite"].get("surrogates") != ARMS
                or not self._trained_arms()
            ):
                for part in self.tasks:
                    self._surrogates(part)
        arms = self._trained_arms()
        for arm in arms:
            own = self.config["arms"][arm]
            known = given_teacher(self.config, arm)
            teacher = UNTRAINED if own["teacher"] else known
            stage = pretrain_stage(self.config, arm, teacher)
            self.disk.append(self._rehearse_one(f"pretrain-{arm}", stage, self.whole))
        known = self.config.get("encoder")
        probed = "protocol" in self.config and (arms or known is not None)
        for part in self.tasks if probed else ():
            encoder = UNTRAINED if known is None else Path(known)
            stage = probe_stage({**self.config, "data": part.data}, encoder)
            own = {**stage, "model": self.config["model"]}
            need = self._rehearse_one(part.entry("probe"), own, part)
            self.disk += [need] * (len(arms) or 1)
        check_disk(self.folder, self.disk)

    def _trained_arms(self) -> list[str]:
        return [arm for arm, own in self.config["arms"].items() if "train" in own]

    def _rehearse_one(self, name: str, stage: Config, part: Part) -> Need:
        size, classes = part.source.size, part.source.num_classes
        with anomaly_mode(self.config["cluster"]):
            return rehearse(
                name, stage, size=size, num_classes=classes, workers=self.workers
            )

    def pretrain(self, arm: str, teacher: Path | None) -> Path:
        """Train one arm's encoder; returns the folder of the model."""
        stage = pretrain_stage(self.config, arm, teacher)
        model = self._train(f"pretrain-{arm}", stage, self.whole)
        copy_artefact(model, self.folder / "models" / arm)
        return model

    def probe(self, arm: str, part: Part, encoder: Path) -> Path:
        """Put a head on an encoder by the protocol; returns the classifier's folder."""
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
        where, read = self.cluster, images.fingerprints[split]
        stage["expected"] = expected(where, read, self.betons.get(read))
        with folder.attempt(), following:
            launch(stage, folder.path, where, self.display.notify)
        return folder.path

    def evaluate(self, arm: str, part: Part, source: Source) -> dict[str, Any]:
        """Attack one arm's classifier; returns its numbers."""
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
            surrogates=self._surrogates(part),
        )
        folder = self._folder(f"evaluate-{part.entry(arm)}", fingerprint)
        if not is_done(folder, own):
            for line in rehearse_subject(source, subject, self.few[part]):
                self.display.notify(line)
            run_stage(
                self.config,
                folder,
                data=part.data,
                source=replace(source, sha256=subject.sha256),
                surrogates=self._surrogates(part),
                cluster=lambda: self.cluster,
                display=self.display,
            )
        pictures = picture_of(folder, own)
        if pictures.is_file():
            kept = self.folder / "gallery" / f"{part.entry(arm)}.npz"
            write_bytes(kept, pictures.read_bytes())
        return dict(read_json(folder.path / "results.json"))

    @property
    def _among_arms(self) -> bool:
        named = self.config.get("suite", {}).get("surrogates")
        return bool(named == ARMS and self._trained_arms())

    def _surrogates(self, part: Part) -> dict[str, Source]:
        """The classifiers that attacks are made on as well, loaded once."""
        if part not in self.surrogates:
            arms, own = self._trained_arms(), self.folder / "classifiers"
            folders = {arm: own / part.entry(arm) for arm in arms}
            named = named_surrogates(self.config["suite"], folders)
            told = self.display.notify
            self.surrogates[part] = checked_surrogates(named, self.few[part], told)
        return self.surrogates[part]

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
        for (_, task), entry in zip(found, results["arms"], strict=True):
            counts = next(self.images[p].counts for p in self.tasks if p.task == task)
            test, notify = counts.get("test", 0), self.display.notify
            write_entry(self.folder, results, entry, images=test, notify=notify)

    def _device(self) -> str | None:
        """In words; as it was noted before where this time nothing had to run."""
        if "cluster" not in self.__dict__:
            before = self.folder / "cost.json"
            return read_json(before)["device"] if before.is_file() else None
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        each = "GPU" if self.cluster["gpu"] else f"CPU, {threads}"
        return f"{self.cluster['workers']} x {each}"
