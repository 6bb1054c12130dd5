"""Data sets by name, cut into train, val, test and pretrain."""

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rrl_dist.core.errors import UserError
from rrl_dist.data.folder import (
    FolderImages,
    decode,
    readable,
    report_unreadable,
)
from rrl_dist.data.sources import SOURCES, Part, Request, Source
from rrl_dist.data.split import labelled, share_of, stratified

SPLITS = ("train", "val", "test", "pretrain")


@dataclass(frozen=True)
class ImageSet:
    """Images with labels.

    Attributes:
        name: data set and split, such as "digits-train".
        images: [N, H, W, 3] uint8; a `FolderImages` where memory would not hold them.
        labels: [N] int64; -1 where there is none.
        index: [N] int64, each sample's place in its data set, unique in this set. It
            survives class selection and splitting, so that randomness and results
            belong to samples.
        classes: names of the labels.
    """

    name: str
    images: NDArray[np.uint8] | FolderImages
    labels: NDArray[np.int64]
    index: NDArray[np.int64]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> int:
        """Side of the square images, in pixels."""
        if isinstance(self.images, FolderImages):
            return self.images.size
        return int(self.images.shape[1])

    @cached_property
    def fingerprint(self) -> str:
        """sha256 over name, classes, labels, index and pixels, in hexadecimal.

        Of images that are decoded on demand it covers relative paths and lengths.
        """
        digest = hashlib.sha256()
        digest.update(repr((self.name, self.classes, len(self), self.size)).encode())
        digest.update(np.ascontiguousarray(self.labels, dtype="<i8").data)
        digest.update(np.ascontiguousarray(self.index, dtype="<i8").data)
        if isinstance(self.images, FolderImages):
            digest.update(repr((self.images.files, self.images.lengths)).encode())
        else:
            digest.update(np.ascontiguousarray(self.images).data)
        return digest.hexdigest()

    def select(self, positions: NDArray[np.int64] | Sequence[int]) -> "ImageSet":
        """The samples at `positions`, in that order; they keep their index."""
        chosen = np.asarray(positions, dtype=np.int64)
        if isinstance(self.images, FolderImages):
            images: NDArray[np.uint8] | FolderImages = self.images.select(chosen)
        else:
            images = self.images[chosen]
        return replace(
            self, images=images, labels=self.labels[chosen], index=self.index[chosen]
        )


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """A data set and how it is cut.

    Attributes:
        name: a key of `SOURCES`.
        root: its folder; None for sets that come with a package.
        size: side of the square images, in pixels.
        classes: names or places of the classes kept, relabelled 0, 1, ... in this
            order; None keeps all.
        train_fraction: share of each class of the training part that is used, in
            (0, 1]: a fixed choice, the smaller within the larger, val images
            are held out of the whole part and do not change with it.
        val_fraction: share of each class of the training part that is held out for
            validation, in [0, 1). The cut is fixed: it depends neither on the run's
            seed nor on `classes`.
        download: whether to fetch what is missing.
        mean, std: of each channel, in [0, 1] pixels, for the encoder's first layer.
        memory_limit_mb: folders that would take more are decoded on demand.
        on_error: "fail" or "skip", for image files that cannot be read.
    """

    name: str
    root: str | None
    size: int
    classes: Sequence[str | int] | None
    train_fraction: float
    val_fraction: float
    download: bool
    mean: Sequence[float]
    std: Sequence[float]
    memory_limit_mb: float
    on_error: str

    @property
    def num_classes(self) -> int:
        """Classes kept."""
        return len(self.class_names)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes kept, in the order of their labels."""
        every = self._source.classes(self._request)
        return tuple(every[place] for place in self._places(every))

    def check(self) -> None:
        """Find the user's mistakes before anything is trained.

        Raises:
            UserError: an unknown name, a missing or empty folder, an unknown class,
                a number out of range, a file that is no image; the message says what to
                change.
        """
        if self.size <= 0:
            raise UserError(f"data.size={self.size}; set it to 1 or more")
        if not 0 <= self.val_fraction < 1:
            raise UserError(
                f"data.val_fraction={self.val_fraction}; set it in [0, 1), such as 0.1"
            )
        if not 0 < self.train_fraction <= 1:
            raise UserError(
                f"data.train_fraction={self.train_fraction}; set it in (0, 1]"
            )
        if self.on_error not in ("fail", "skip"):
            raise UserError(
                f"data.on_error={self.on_error}; set it to 'fail' or 'skip'"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise UserError(
                f"data.mean={list(self.mean)} and data.std={list(self.std)}; give "
                "three values each, std above 0"
            )
        if self.num_classes == 0:
            raise UserError("data.classes is empty; name classes, or set it to null")
        if self.on_error == "fail":
            self._source.check(self._request)

    def split(self, split: str) -> ImageSet:
        """Read one split.

        "train" is the training part without "val"; "pretrain" adds the unlabelled
        images where the data set has them, with an index after the training part's.
        "train@0.01" is a hundredth of each class of "train", see `labelled`.

        Raises:
            UserError: if the data cannot be read, or the split is unknown or empty.
        """
        whole, part_of, share = split.partition("@")
        if part_of:
            return self._share(self.split(whole), share_of(share))
        if split not in SPLITS:
            raise UserError(f"no split {split!r}; choose one of {', '.join(SPLITS)}")
        part = self._source.read(self._request, "test" if split == "test" else "train")
        chosen = np.ones(len(part.labels), dtype=np.bool_)
        if split != "test":
            held_out = stratified(
                part.labels, fraction=self.val_fraction, key=(self.name, "val")
            )
            chosen = held_out if split == "val" else ~held_out & self._used(part)
        kept = self._decoded(self._keep(part, chosen, split))
        if len(kept) == 0:
            raise UserError(
                f"{kept.name} has no images; change data.val_fraction or data.classes"
            )
        if split == "pretrain" and self._source.unlabelled:
            return self._with_unlabelled(kept, len(part.labels))
        return kept

    def _share(self, images: ImageSet, share: float) -> ImageSet:
        key = (self.name,)
        chosen = labelled(images.labels, images.index, fraction=share, key=key)
        return replace(images.select(chosen), name=f"{images.name}@{share:g}")

    @property
    def _source(self) -> Source:
        if self.name not in SOURCES:
            raise UserError(f"no data set {self.name!r}{_nearest(self.name, SOURCES)}")
        return SOURCES[self.name]

    @property
    def _request(self) -> Request:
        return Request(
            name=self.name,
            root=None if self.root is None else Path(self.root).expanduser(),
            size=self.size,
            download=self.download,
        )

    def _used(self, part: Part) -> NDArray[np.bool_]:
        """[N] bool: the part's images that `train_fraction` takes."""
        if self.train_fraction == 1:
            return np.ones(len(part.labels), dtype=np.bool_)
        key = (self.name, "train_fraction")
        return stratified(part.labels, fraction=self.train_fraction, key=key)

    def _decoded(self, kept: ImageSet) -> ImageSet:
        """Image files read into memory where they fit, without the unreadable."""
        files, skip = kept.images, self.on_error == "skip"
        if not isinstance(files, FolderImages):
            return kept
        if len(files) * files.size**2 * 3 <= self.memory_limit_mb * 2**20:
            decoded, good = decode(files)
            report_unreadable(files, good, skip=skip)
            whole = replace(kept, images=decoded)
        elif skip:
            # Positions are dealt out before images are read: the bad must be known.
            good, whole = readable(files), kept
            report_unreadable(files, good, skip=True)
        else:
            return kept
        return whole if good.all() else whole.select(np.flatnonzero(good))

    def _places(self, every: tuple[str, ...]) -> list[int]:
        """Places in `every` of the classes kept, in the order given."""
        if self.classes is None:
            return list(range(len(every)))
        places = [_place(wanted, every) for wanted in self.classes]
        if len(set(places)) < len(places):
            raise UserError(
                f"data.classes={list(self.classes)} names a class twice; remove one"
            )
        return places

    def _keep(self, part: Part, chosen: NDArray[np.bool_], split: str) -> ImageSet:
        """The chosen samples of the classes kept, relabelled."""
        places = self._places(part.classes)
        relabel = np.full(len(part.classes), -1, dtype=np.int64)
        relabel[places] = np.arange(len(places))
        labels = relabel[part.labels]
        whole = ImageSet(
            name=f"{self.name}-{split}",
            images=part.images,
            labels=labels,
            index=part.index,
            classes=tuple(part.classes[place] for place in places),
        )
        wanted = chosen & (labels >= 0)
        return whole if wanted.all() else whole.select(np.flatnonzero(wanted))

    def _with_unlabelled(self, kept: ImageSet, train_count: int) -> ImageSet:
        """All unlabelled images are added: their classes are not known."""
        more = self._source.read(self._request, "unlabelled")
        if isinstance(kept.images, FolderImages) or isinstance(
            more.images, FolderImages
        ):
            raise TypeError("unlabelled parts are read into memory")
        return replace(
            kept,
            images=np.concatenate([kept.images, more.images]),
            labels=np.concatenate([kept.labels, np.full_like(more.labels, -1)]),
            index=np.concatenate([kept.index, train_count + more.index]),
        )


def _place(wanted: str | int, every: tuple[str, ...]) -> int:
    """Place of a class given by name or place; a name that looks like a place wins."""
    if str(wanted) in every:
        return every.index(str(wanted))
    if isinstance(wanted, int) and 0 <= wanted < len(every):
        return wanted
    if isinstance(wanted, int):
        raise UserError(
            f"no class {wanted}; data.classes takes places from 0 to {len(every) - 1}"
        )
    raise UserError(f"no class {wanted!r} in data.classes{_nearest(wanted, every)}")


def _nearest(wanted: str, valid: Sequence[str] | dict[str, Source]) -> str:
    """The mend: the nearest valid name, or a few of them."""
    near = difflib.get_close_matches(wanted, list(valid), n=1, cutoff=0.5)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; choose from {', '.join(list(valid)[:12])}"
