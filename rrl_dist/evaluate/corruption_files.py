"""The files that corrupted images come from: held against the test images, and what
their evaluation is told apart by."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rrl_dist.core.errors import UserError
from rrl_dist.data.corruptions import SMALL
from rrl_dist.data.corruptions.textures import check_textures, textures_hash
from rrl_dist.data.datasets import DataSource, ImageSet
from rrl_dist.data.folder import FolderImages
from rrl_dist.data.published import KEY, Published
from rrl_dist.evaluate.images import Images
from rrl_dist.training.build import build

Config = Mapping[str, Any]
FOLDERS = ("folder", "frost")


def absolute_suite(suite: Config) -> dict[str, Any]:
    """A copy whose folders of files do not depend on where a process was started."""
    own = suite.get("corruptions")
    if not isinstance(own, Mapping):
        return dict(suite)
    named = {k: own[k] for k in FOLDERS if own.get(k) is not None}
    found = {k: str(Path(v).expanduser().absolute()) for k, v in named.items()}
    return {**suite, "corruptions": {**own, **found}}


def corruption_identity(own: Config) -> dict[str, Any]:
    """What rows depend on: files as what they hold, not where they are.

    Args:
        own: `suite.corruptions`.

    Raises:
        UserError: they cannot be read.
    """
    found = {k: v for k, v in own.items() if k not in FOLDERS}
    if own.get("folder") is not None:
        published = Published(str(own["folder"]))
        asked = [str(k) for k in own["kinds"]], [int(s) for s in own["severities"]]
        published.check(*asked)
        return {**found, "folder": published.fingerprint(*asked)}
    if own.get("frost") is not None and "frost" in own["kinds"]:
        found["frost"] = textures_hash(str(own["frost"]))
    return found


def files_of(suite: Config) -> dict[str, Any] | None:
    """Fingerprints of the files that a suite's corruptions are read from; None of none.

    Raises:
        UserError: they cannot be read.
    """
    own = suite.get("corruptions")
    if own is None or not any(own.get(key) is not None for key in FOLDERS):
        return None
    return {k: v for k, v in corruption_identity(own).items() if k in FOLDERS}


def check_files(suite: Config, images: Images, data: Config | None, split: str) -> None:
    """Hold the files of a suite's corruptions against the images that are tested.

    Args:
        suite: its configuration.
        images: that are tested, or all of their split.
        data: configuration of their data set; None for a caller's own.
        split: of it.

    Raises:
        UserError: published files are of other images, or textures too small.
    """
    own = suite.get("corruptions")
    if own is None:
        return
    if own.get("folder") is None:
        if own.get("frost") is not None and "frost" in own["kinds"]:
            small = images.size <= SMALL
            check_textures(str(own["frost"]), images.size, small=small)
        return
    published = Published(str(own["folder"]))
    published.check(own["kinds"], own["severities"])
    if split != "test":
        raise UserError(
            f"{KEY}: published files are of test images; set evaluate.split=test, or "
            f"{KEY}=null"
        )
    if int(images.index.max()) >= len(published):
        raise UserError(
            f"{published.folder} has {len(published)} images, and {images.name} more; "
            f"choose the data= that it was made of, or {KEY}=null"
        )
    source: DataSource | None = None if data is None else build(data)
    if published.arrays:
        published.images(own["kinds"][0], 1, images.index[:1], size=images.size)
        _check_labels(published, images, source)
    else:
        _check_names(published, images, source, split)


def _check_labels(
    published: Published, images: Images, source: DataSource | None
) -> None:
    """Class selection numbers classes anew; the files have the data set's own."""
    labels = images.labels
    if source is not None:
        every = replace(source, classes=None).class_names
        numbers = np.array([every.index(name) for name in images.classes])
        labels = numbers[labels]
    theirs = published.labels()[images.index]
    wrong = np.flatnonzero(theirs != labels)
    if len(wrong):
        first = wrong[np.argmin(images.index[wrong])]
        place, there, here = images.index[first], theirs[first], labels[first]
        raise UserError(
            f"{published.folder} is not of {images.name}: image {place} is of class "
            f"{there} there and {here} here; choose the data set in its "
            "own order, such as data=cifar10"
        )


def _check_names(
    published: Published, images: Images, source: DataSource | None, split: str
) -> None:
    here = None
    if source is not None and isinstance(images, ImageSet):
        # Nothing is decoded: only the names are wanted.
        listed = replace(source, memory_limit_mb=0.0, on_error="fail").split(split)
        here = listed if isinstance(listed.images, FolderImages) else None
    if here is None or not isinstance(here.images, FolderImages):
        raise UserError(
            f"{published.folder} has image files, and {images.name} has none to hold "
            "them against; choose data=imagefolder with the validation images"
        )
    theirs = published.names()
    wanted = dict(zip(here.index.tolist(), here.images.files, strict=True))
    for place in np.sort(images.index).tolist():
        if _stem(theirs[place]) != _stem(wanted[place]):
            raise UserError(
                f"{published.folder} is not of {images.name}: image {place} is "
                f"{theirs[place]} there and {wanted[place]} here; keep the names of "
                "the validation images, in folders of their classes"
            )


def _stem(name: str) -> str:
    return name.rpartition(".")[0]
