"""What an experiment does before its first stage: it reads, counts and rehearses."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rrl_dist.core.display import Display
from rrl_dist.data.datasets import ImageSet
from rrl_dist.data.prepare import prepare_betons
from rrl_dist.evaluate.identity import check_counts, tested_splits
from rrl_dist.evaluate.images import Images as EvaluatedImages
from rrl_dist.evaluate.plan import build_suite
from rrl_dist.evaluate.rehearsal import check_suite, some_images
from rrl_dist.evaluate.source import Source
from rrl_dist.evaluate.surrogates import ARMS, checked_surrogates, named_surrogates
from rrl_dist.judges import Judge, judges_of
from rrl_dist.stages import given_teacher, pretrain_stage
from rrl_dist.tasks import Images, Part, attacked_split, cut_tasks
from rrl_dist.training.anomaly import anomaly_mode
from rrl_dist.training.build import LINEAR
from rrl_dist.training.checkpoint_disk import Need, check_disk
from rrl_dist.training.length import run_length
from rrl_dist.training.rehearsal import UNTRAINED, rehearse

Config = Mapping[str, Any]


class Preparation:
    """The images of an experiment, and what is known of its stages before they run.

    Args:
        config, folder, display: as of `Experiment`.

    Attributes:
        whole: the data set that arms are trained on.
        tasks: what they are judged on.
        judges: all that each arm is judged by.
        images: once read, by part.
        betons: once written, by fingerprint of the split.
        loader: "memory", or what reads those.
    """

    def __init__(self, config: Config, folder: Path, display: Display) -> None:
        self.config, self.folder, self.display = config, folder, display
        self.threads = int(config["cluster"]["threads"])
        self.workers = int(config["cluster"]["workers"])
        self.loader = str(config["loader"])
        self.whole = Part(None, config["data"])
        self.tasks = cut_tasks(config) or (self.whole,)
        self.judges = judges_of(config, self.tasks)
        self.images: dict[Part, Images] = {}
        self.betons: dict[str, Path] = {}
        self.few: dict[Part, EvaluatedImages] = {}
        self.known: dict[tuple[Part, str | None, int | None], dict[str, Source]] = {}
        self.disk: list[Need] = []  # for each stage that trains

    def do(self) -> None:
        """Read the images, find mistakes, and write `.beton` files that are missing."""
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

    def trained_arms(self) -> list[str]:
        """The arms that are not there already."""
        return [arm for arm, own in self.config["arms"].items() if "train" in own]

    @property
    def among_arms(self) -> bool:
        """Whether attacks are made on the other arms' classifiers."""
        named = self.config.get("suite", {}).get("surrogates")
        return bool(named == ARMS and self.trained_arms())

    def surrogates(self, judge: Judge) -> dict[str, Source]:
        """The classifiers that attacks are made on as well, loaded once; of arms those
        with a head by the same protocol and seed."""
        own = (judge.protocol, judge.head_seed) if self.among_arms else (None, None)
        key = (judge.part, *own)
        if key not in self.known:
            where = self.folder / "classifiers"
            arms = {arm: where / judge.entry(arm).name for arm in self.trained_arms()}
            named = named_surrogates(self.config["suite"], arms)
            told = self.display.notify
            self.known[key] = checked_surrogates(named, self.few[judge.part], told)
        return self.known[key]

    def _read(self, part: Part) -> list[ImageSet]:
        """Note what a part holds; returns the splits that are trained on."""
        only_tested = "protocol" not in self.config and not self.trained_arms()
        attacked = attacked_split(self.config)
        read = tested_splits(self.config["suite"], attacked) if only_tested else None
        heads = self._splits_of_heads(part)
        with part.naming():
            splits = part.read(read, attacked=attacked)
            splits |= part.read([name for name in heads if name not in splits])
        part.check_files(self.config.get("suite", {}), splits[attacked], attacked)
        self.few[part] = some_images(splits[attacked])
        images = self.images[part] = Images.of(splits)
        counts = ", ".join(f"{count} {name}" for name, count in images.counts.items())
        self.display.notify(f"{part.label}: {counts} images")
        arms = self.config["arms"].values() if part is self.whole else ()
        used = {str(arm.get("split", "pretrain")) for arm in arms if "train" in arm}
        return [split for name, split in splits.items() if name in {*used, *heads}]

    def _splits_of_heads(self, part: Part) -> list[str]:
        """What heads are trained on, of a part."""
        heads = [j for j in self.judges if j.part is part and j.settings is not None]
        return list(dict.fromkeys(judge.split for judge in heads))

    def _check_lengths(self) -> None:
        """A batch that does not fit is told of before the first stage, not the last."""
        key = "arms.{}.train" if "protocol" in self.config else "train"
        for name, arm in self.config["arms"].items():
            if "train" in arm:
                count = self.images[self.whole].counts[arm.get("split", "pretrain")]
                own = key.format(name)
                run_length(arm["train"], None, count, self.workers, key=own)
        for judge, settings in self._protocols():
            count = self.images[judge.part].counts[judge.split]
            with judge.part.naming():
                own = f"{judge.key}.train"
                run_length(settings["train"], None, count, self.workers, key=own)

    def _protocols(self) -> Iterator[tuple[Judge, Config]]:
        """Each protocol on each part once, whatever its seeds."""
        first: dict[tuple[Part, str | None], Judge] = {}
        for judge in self.judges:
            first.setdefault((judge.part, judge.protocol), judge)
        for judge in first.values():
            if judge.settings is not None:
                yield judge, judge.settings

    def _rehearse(self) -> None:
        """What cannot run is told now, not when its turn has come."""
        if "suite" in self.config:
            for part in self.tasks:
                with part.naming():
                    notes = check_counts(self.config, self.images[part].counts)
                for line in notes:
                    self.display.notify(line)
            for judge in self.judges if not self.among_arms else ():
                self.surrogates(judge)
            self._check_heads()
        arms = self.trained_arms()
        for arm in arms:
            own = self.config["arms"][arm]
            known = given_teacher(self.config, arm)
            teacher = UNTRAINED if own["teacher"] else known
            stage = pretrain_stage(self.config, arm, teacher)
            self.disk.append(self._rehearse_one(f"pretrain-{arm}", stage, self.whole))
        known = self.config.get("encoder")
        if arms or known is not None:
            self._rehearse_heads(UNTRAINED if known is None else Path(known), arms)
        check_disk(self.folder, self.disk)

    def _check_heads(self) -> None:
        """A head that is more than a matrix shows no features to a suite."""
        suite = build_suite(self.config["suite"], self.config["ball"], seed=0)
        for judge, settings in self._protocols():
            if settings["head"] != {"_target_": LINEAR}:
                name = f"{judge.key} with a head that is not linear"
                check_suite(name, suite, has_encoder=False)

    def _rehearse_heads(self, encoder: Path, arms: Sequence[str]) -> None:
        seeds = len({judge.head_seed for judge in self.judges})
        for judge, _ in self._protocols():
            stage = judge.stage(self.config, encoder)
            own = {**stage, "model": self.config["model"]}
            name = judge.entry("probe")._replace(head_seed=None).name
            need = self._rehearse_one(name, own, judge.part)
            self.disk += [need] * (len(arms) or 1) * seeds

    def _rehearse_one(self, name: str, stage: Config, part: Part) -> Need:
        size, classes = part.source.size, part.source.num_classes
        with anomaly_mode(self.config["cluster"]):
            return rehearse(
                name, stage, size=size, num_classes=classes, workers=self.workers
            )
