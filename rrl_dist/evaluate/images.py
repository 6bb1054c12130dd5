"""The images of an evaluation: a split of a known data set, or a caller's own."""

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rrl_dist.core.errors import UserError
from rrl_dist.core.randomness import stream
from rrl_dist.data.datasets import DataSource, ImageSet
from rrl_dist.data.memory_loader import read_images
from rrl_dist.evaluate.settings import check_limit
from rrl_dist.training.build import build

Positions = NDArray[np.int64]


class Items(Protocol):
    """A torch data set of (image, label) that can be asked for any of its items."""

    def __getitem__(self, place: int) -> Any: ...
    def __len__(self) -> int: ...


@dataclass(frozen=True)
class GivenImages:
    """Images of a caller's data set, read when they are needed.

    Attributes:
        items: the data set; its images are [3, H, W] tensors in [0, 1].
        labels: [N] int64.
        index: [N] int64, each sample's place in `items`.
        classes: names of the labels.
        size: side of the images, in pixels.
        fingerprint: sha256 over labels and pixels, in hexadecimal.
        name: for messages.
    """

    items: Items
    labels: NDArray[np.int64]
    index: Positions
    classes: tuple[str, ...]
    size: int
    fingerprint: str
    name: str = "the data set"

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, positions: Positions | Sequence[int]) -> "GivenImages":
        """The samples at `positions`, in that order; they keep their index."""
        chosen = np.asarray(positions, dtype=np.int64)
        return replace(self, labels=self.labels[chosen], index=self.index[chosen])


Images = ImageSet | GivenImages


def given_images(items: Items, *, classes: int | None = None) -> GivenImages:
    """Read a data set once, for its labels and what it is told apart by.

    Args:
        items: of (image, label): [3, H, W] in [0, 1], and a whole number from 0.
        classes: how many there are; None for one more than the largest label.

    Raises:
        UserError: it cannot be used, naming the first item that is at fault.
    """
    count = len(items) if isinstance(items, Sized) else 0
    if count == 0:
        raise UserError("the data set has no items; give one with a length above 0")
    digest, labels, size = sha256(), [], 0
    for place in range(count):
        x, label = _item(items, place)
        size = size or x.shape[-1]
        if x.shape != (3, size, size):
            raise UserError(
                f"item {place} of the data set is {tuple(x.shape)}, others are "
                f"{(3, size, size)}; resize them to one square size"
            )
        digest.update(x.numpy().tobytes())
        labels.append(label)
    known = max(labels) + 1 if classes is None else classes
    if not 0 <= min(labels) <= max(labels) < known:
        raise UserError(
            f"labels go from {min(labels)} to {max(labels)}, and there are {known} "
            "classes; number them from 0"
        )
    digest.update(np.asarray(labels, dtype="<i8").tobytes())
    return GivenImages(
        items=items,
        labels=np.asarray(labels, dtype=np.int64),
        index=np.arange(count),
        classes=tuple(map(str, range(known))),
        size=size,
        fingerprint=digest.hexdigest(),
    )


def _item(items: Items, place: int) -> tuple[Tensor, int]:
    x, label = items[place]
    if not isinstance(x, Tensor) or x.ndim != 3 or len(x) != 3:
        what = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise UserError(
            f"item {place} of the data set is {what}; give [3, H, W] tensors, as "
            "torchvision.transforms.ToTensor() makes them"
        )
    x = x.detach().cpu().float().contiguous()
    if not bool(((x >= 0) & (x <= 1)).all()):
        raise UserError(
            f"item {place} of the data set goes from {float(x.min()):.3g} to "
            f"{float(x.max()):.3g}; give images in [0, 1], and let the model normalize"
        )
    return x, int(label)


def pixels(images: Images, positions: Positions) -> Tensor:
    """[N, 3, H, W] float32 in [0, 1], the images at `positions`.

    Raises:
        UserError: an image cannot be read.
    """
    if isinstance(images, ImageSet):
        return read_images(images, positions).float() / 255
    places = images.index[positions].tolist()
    if not places:
        return torch.zeros(0, 3, images.size, images.size)
    return torch.stack([_item(images.items, place)[0] for place in places])


def chosen_images(job: Mapping[str, Any]) -> Images:
    """The images of an evaluation, in a random order that is always the same.

    So the first of them stand for all, and those of a limit are the first of all.

    Args:
        job: `images`, or `data` and `split` that they are of; `limit`, how many of
            them, or None for all.

    Raises:
        UserError: the limit is below 1, or the data set cannot be read.
    """
    limit = job["limit"]
    if limit is not None:
        check_limit("evaluate.limit", limit)
    images = cast(Images, job.get("images") or _split(job))
    order = stream(0, "evaluate").permutation(len(images))
    return images.select(order if limit is None else order[: int(limit)])


def in_order(images: Images) -> Images:
    """The same images by their place in the data set."""
    return images.select(np.argsort(images.index))


def _split(job: Mapping[str, Any]) -> ImageSet:
    source: DataSource = build(job["data"])
    return source.split(job["split"])
