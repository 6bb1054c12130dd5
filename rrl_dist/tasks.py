"""The data set as stages see it: whole for pretraining, cut into tasks for the rest.

A task is some of the data set's classes, or another data set: an encoder that was
trained on other images, without their labels, gets a head for these and is attacked on
them.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rrl_dist.core.errors import UserError
from rrl_dist.data.datasets import DataSource, ImageSet
from rrl_dist.data.prepare import stored_as
from rrl_dist.evaluate.corruption_files import check_files
from rrl_dist.evaluate.entries import Entry
from rrl_dist.training.build import build

Config = Mapping[str, Any]

TRAINED = ("pretrain", "train", "val")
ATTACKED = ("test", "val")
NAME = re.compile(r"[\w.-]+", re.ASCII)


@dataclass(frozen=True)
class Images:
    """The splits of a part: what they hold, by fingerprint; how many; "raw" or "jpg",
    as they are stored in a `.beton`."""

    fingerprints: Mapping[str, str]
    counts: Mapping[str, int]
    stored: Mapping[str, str]

    @classmethod
    def of(cls, splits: Mapping[str, ImageSet]) -> "Images":
        """Of the images themselves, which need not be kept."""
        return cls(
            {name: split.fingerprint for name, split in splits.items()},
            {name: len(split) for name, split in splits.items()},
            {name: stored_as(split) for name, split in splits.items()},
        )


@dataclass(frozen=True, eq=False)
class Part:
    """The images that some stages work on.

    Attributes:
        task: its name; None for the data set as `data` cuts it.
        data: configuration of the data set with these classes.
        transfers: whether it is another data set than the one of the encoders.
    """

    task: str | None
    data: Config
    transfers: bool = False

    @cached_property
    def source(self) -> DataSource:
        """The data set."""
        source: DataSource = build(self.data)
        return source

    @property
    def label(self) -> str:
        """For a reader: "digits", "task unseen"."""
        return self.source.name if self.task is None else f"task {self.task}"

    def entry(self, arm: str) -> str:
        """An arm on this part, as stages and results name it."""
        return Entry(arm, self.task).name

    def check(self) -> None:
        """Find mistakes before an image is read.

        Raises:
            UserError: naming the task's own setting.
        """
        if self.task is None:
            return self.source.check()
        key = f"tasks.{self.task}"
        try:
            self.source.check()
            count = self.source.num_classes
        except UserError as error:
            raise UserError(self._told(str(error), key)) from None
        if count < 2:
            raise UserError(f"{key} has one class; name at least two to tell apart")

    def _told(self, told: str, key: str) -> str:
        """A mistake under the keys that the task has it from."""
        own = {"classes": key}
        if self.transfers:
            own = {name: f"{key}.{name}" for name in self.data}
        for name, there in own.items():
            told = told.replace(f"data.{name}", there)
        return told if key in told else f"task {self.task}: {told}"

    def read(
        self, names: Sequence[str] | None = None, *, attacked: str = "test"
    ) -> dict[str, ImageSet]:
        """The splits of these names; of none, those that stages need: a task is probed
        and attacked only.

        Args:
            names: of splits, or None.
            attacked: the split that is attacked.

        Raises:
            UserError: an image cannot be read, or a split is empty.
        """
        if names is None:
            trained = TRAINED if self.task is None else ("train",)
            names = tuple(dict.fromkeys((*trained, attacked)))
        return {name: self.source.split(name) for name in names}

    def check_files(self, suite: Config, images: ImageSet, split: str) -> None:
        """Hold the files of a suite's corruptions against the part's images.

        Raises:
            UserError: naming the task, see `corruption_files.check_files`.
        """
        with self.naming():
            check_files(suite, images, self.data, split)

    @contextmanager
    def naming(self) -> Iterator[None]:
        """A mistake about these images gets the task's name."""
        try:
            yield
        except UserError as error:
            if self.task is None:
                raise
            raise UserError(f"task {self.task}: {error}") from None


def attacked_split(config: Config) -> str:
    """The split that an experiment attacks; "test" of one that attacks nothing.

    Raises:
        UserError: it is none of those that can be.
    """
    split = config.get("evaluate", {}).get("split", "test")
    if split not in ATTACKED:
        raise UserError(f"evaluate.split={split}; choose {' or '.join(ATTACKED)}")
    return str(split)


def cut_tasks(config: Config) -> tuple[Part, ...]:
    """What arms are probed and attacked on; none for the data set itself.

    Args:
        config: the experiment's: `data`, `arms` and `tasks`, by name the classes as
            `data.classes` takes them, or the whole configuration of a data set; or
            None.

    Raises:
        UserError: no task, an odd name, two names that would fall together, or images
            of another size than the encoders'.
    """
    tasks = config.get("tasks")
    if tasks is None:
        return ()
    if not isinstance(tasks, Mapping) or not tasks:
        raise UserError(
            f"tasks={tasks} names none; give tasks={{NAME: [CLASS, CLASS]}}, or null"
        )
    parts = []
    for name, task in tasks.items():
        if not NAME.fullmatch(str(name)):
            raise UserError(
                f"tasks.{name}: a task's name is part of file names; use letters, "
                "digits, '_', '.' and '-'"
            )
        parts.append(_part(str(name), task, config["data"]))
    _check_names(config["arms"], parts)
    return tuple(parts)


def _part(name: str, task: Any, data: Config) -> Part:
    if isinstance(task, list | tuple):
        return Part(name, {**data, "classes": list(task)})
    if not isinstance(task, Mapping) or "_target_" not in task:
        raise UserError(
            f"tasks.{name}={task}; give a list, such as [0,1], or a data set by "
            f"+data@tasks.{name}=DATA"
        )
    if task.get("size") != data["size"]:
        raise UserError(
            f"tasks.{name}.size={task.get('size')}, and encoders are trained on images "
            f"of {data['size']} px; set tasks.{name}.size={data['size']}"
        )
    return Part(name, dict(task), transfers=True)


def _check_names(arms: Config, parts: list[Part]) -> None:
    """Raises UserError where two arms on two tasks would have one name."""
    seen: dict[str, tuple[str, str | None]] = {}
    for arm in arms:
        for part in parts:
            entry = part.entry(arm)
            if entry in seen:
                other_arm, other_task = seen[entry]
                raise UserError(
                    f"arm {arm} on tasks.{part.task} and arm {other_arm} on "
                    f"tasks.{other_task} would both be {entry}; rename a task"
                )
            seen[entry] = arm, part.task
