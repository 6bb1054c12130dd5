"""The data set as stages see it: whole for pretraining, cut into tasks for the rest.

A task is some of the data set's classes: an encoder that was trained on others, without
their labels, gets a linear head for them and is attacked on them.
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
from rrl_dist.evaluate.comparison import entry_name
from rrl_dist.evaluate.corruption_files import check_files
from rrl_dist.training.build import build

Config = Mapping[str, Any]

TRAINED = ("pretrain", "train", "val")
ATTACKED = ("test", "val")
_NAME = re.compile(r"[\w.-]+", re.ASCII)


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
    """The classes of a data set that some stages work on.

    Attributes:
        task: its name; None for the data set as `data` cuts it.
        data: configuration of the data set with these classes.
    """

    task: str | None
    data: Config

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
        return entry_name(arm, self.task)

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
            raise UserError(str(error).replace("data.classes", key)) from None
        if count < 2:
            raise UserError(f"{key} has one class; name at least two to tell apart")

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
            `data.classes` takes them, or None.

    Raises:
        UserError: no task, an odd name, or two names that would fall together.
    """
    tasks = config.get("tasks")
    if tasks is None:
        return ()
    if not isinstance(tasks, Mapping) or not tasks:
        raise UserError(
            f"tasks={tasks} names none; give tasks={{NAME: [CLASS, CLASS]}}, or null"
        )
    parts = []
    for name, classes in tasks.items():
        if not _NAME.fullmatch(str(name)):
            raise UserError(
                f"tasks.{name}: a task's name is part of file names; use letters, "
                "digits, '_', '.' and '-'"
            )
        if not isinstance(classes, list | tuple):
            raise UserError(f"tasks.{name}={classes}; give a list, such as [0,1]")
        parts.append(Part(str(name), {**config["data"], "classes": list(classes)}))
    _check_names(config["arms"], parts)
    return tuple(parts)


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
