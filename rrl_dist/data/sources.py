"""Where each data set's images come from: one small reader a data set."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rrl_dist.core.errors import UserError
from rrl_dist.data import folder
from rrl_dist.data.split import stratified

_TEST_FRACTION = 0.2  # of the sets that come without a test split
# What torchvision raises on files that are missing, damaged or of something else.
_UNREADABLE = (
    RuntimeError,
    OSError,
    ValueError,
    EOFError,
    AssertionError,
    LookupError,
    struct.error,
)
_DIGITS_FILE = "sklearn/datasets/data/digits.csv.gz"
_DIGITS = tuple(str(digit) for digit in range(10))


@dataclass(frozen=True)
class Request:
    """What a reader is asked for; the fields are those of `DataSource`."""

    name: str
    root: Path | None
    size: int
    download: bool

    def folder(self) -> Path:
        """The root, which most readers need."""
        if self.root is None:
            raise UserError(f"{self.name} needs a folder; set data.root")
        return self.root


@dataclass(frozen=True)
class Part:
    """Images of one part, in the data set's own order.

    Attributes:
        images: [N, size, size, 3] uint8, or the same decoded on demand.
        labels: [N] int64; -1 where there is none.
        index: [N] int64, place in the part as it is stored.
        classes: names of the labels.
    """

    images: NDArray[np.uint8] | folder.FolderImages
    labels: NDArray[np.int64]
    index: NDArray[np.int64]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Source:
    """One data set.

    Attributes:
        read: reads the part "train", "test" or, where there is one, "unlabelled".
        classes: the names of the classes; finds out whether the files are there, and
            decodes no image files.
        unlabelled: whether there is an unlabelled part.
        check: finds files that are no images, where each image is a file.
    """

    read: Callable[[Request, str], Part]
    classes: Callable[[Request], tuple[str, ...]]
    unlabelled: bool = False
    check: Callable[[Request], None] = lambda request: None


def resize(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """[N, H, W] or [N, H, W, 3] uint8 -> [N, size, size, 3], bilinear.

    Pillow resizes in integer arithmetic, so all machines get the same pixels.
    """
    if images.ndim == 3:
        images = np.repeat(images[..., None], 3, axis=3)
    if images.shape[1:3] == (size, size):
        return np.ascontiguousarray(images)
    out = np.empty((len(images), size, size, 3), dtype=np.uint8)
    for position, image in enumerate(images):
        whole = Image.fromarray(np.ascontiguousarray(image))
        small = whole.resize((size, size), Image.Resampling.BILINEAR)
        out[position] = np.asarray(small)
    return out


def _read_digits(request: Request, part: str) -> Part:
    images, labels = _digits()
    is_test = stratified(labels, fraction=_TEST_FRACTION, key=("digits", "test"))
    index = np.flatnonzero(is_test == (part == "test"))
    grey = np.rint(images[index] * 255 / 16).astype(np.uint8)
    return Part(resize(grey, request.size), labels[index], index, _DIGITS)


def _digits() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """[N, 8, 8] from 0 to 16, and labels: scikit-learn's file, without scikit-learn,
    whose import takes each process seconds."""
    path = distribution("scikit-learn").locate_file(_DIGITS_FILE)
    table = np.loadtxt(str(path), delimiter=",")
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)


def _torchvision(
    kind: str, classes: tuple[str, ...] | None, **splits: dict[str, Any]
) -> Source:
    """A set of torchvision; `splits` holds each part's arguments."""

    def read(request: Request, part: str) -> Part:
        found = _open(kind, request, splits[part])
        # STL-10 and SVHN store channels first and call the labels so.
        images = np.asarray(found.data)
        if images.ndim == 4 and images.shape[1] == 3:
            images = images.transpose(0, 2, 3, 1)
        labels = found.labels if hasattr(found, "labels") else found.targets
        names = classes if classes is not None else tuple(found.classes)
        count = len(images)
        return Part(
            resize(images, request.size),
            np.asarray(labels).astype(np.int64).reshape(count),
            np.arange(count),
            names,
        )

    def names(request: Request) -> tuple[str, ...]:
        # Both are opened, so that a missing file is found before training.
        train, _ = (_open(kind, request, splits[part]) for part in ("train", "test"))
        return classes or tuple(train.classes)

    return Source(read, names, "unlabelled" in splits)


def _open(kind: str, request: Request, arguments: dict[str, Any]) -> Any:
    from torchvision import datasets

    root = request.folder()
    build = getattr(datasets, kind)
    try:
        return build(root=root, download=request.download, **arguments)
    except _UNREADABLE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if not isinstance(error, OSError) and "not found" not in reason:
            raise UserError(
                f"{request.name} in {root} is damaged ({reason}); remove it and set "
                "data.download=true, or set data.root to another folder"
            ) from error
        if request.download:
            raise UserError(
                f"{request.name} could not be downloaded to {root} ({reason}); "
                "download it elsewhere and set data.root"
            ) from error
        raise UserError(
            f"no {request.name} in {root}; set data.download=true, or data.root to "
            "the folder that holds it"
        ) from error


def _listing(request: Request, part: str) -> tuple[folder.Listing, NDArray[np.int64]]:
    """The files of a part, and their places in the part as it is stored."""
    root = request.folder()
    if not (root / "train").is_dir():
        whole = folder.list_folder(root, size=request.size)
        is_test = stratified(
            whole.labels, fraction=_TEST_FRACTION, key=("imagefolder", "test")
        )
        return whole, np.flatnonzero(is_test == (part == "test"))
    if part == "train":
        listing = folder.list_folder(root / "train", size=request.size)
    else:
        listing = folder.list_folder(_test_folder(root), size=request.size)
    return listing, np.arange(len(listing.labels))


def _test_folder(root: Path) -> Path:
    for name in ("test", "val"):
        if (root / name).is_dir():
            return root / name
    raise UserError(f"{root} has train but neither test nor val; add one of them")


def _folder_classes(request: Request) -> tuple[str, ...]:
    root = request.folder()
    if not (root / "train").is_dir():
        return folder.class_folders(root)
    train = folder.class_folders(root / "train")
    test = folder.class_folders(_test_folder(root))
    if train != test:
        different = sorted(set(train) ^ set(test))
        raise UserError(
            f"the train and test folders in {root} differ in the class "
            f"{different[0]!r}; give both the same class folders"
        )
    return train


def _read_folder(request: Request, part: str) -> Part:
    classes = _folder_classes(request)
    listing, index = _listing(request, part)
    # Decoded after the split is cut: a tenth of a folder is a tenth of the work.
    return Part(listing.images.select(index), listing.labels[index], index, classes)


def _check_folder(request: Request) -> None:
    root = request.folder()
    parts = [root]
    if (root / "train").is_dir():
        parts = [root / "train", _test_folder(root)]
    for part in parts:
        folder.check_headers(folder.list_folder(part, size=request.size).images)


_TRAIN_TEST = {"train": {"train": True}, "test": {"train": False}}
_BY_SPLIT = {"train": {"split": "train"}, "test": {"split": "test"}}

SOURCES: dict[str, Source] = {
    "digits": Source(_read_digits, lambda _: _DIGITS),
    "cifar10": _torchvision("CIFAR10", None, **_TRAIN_TEST),
    "cifar100": _torchvision("CIFAR100", None, **_TRAIN_TEST),
    "stl10": _torchvision(
        "STL10", None, **_BY_SPLIT, unlabelled={"split": "unlabeled"}
    ),
    "svhn": _torchvision("SVHN", _DIGITS, **_BY_SPLIT),
    "mnist": _torchvision("MNIST", _DIGITS, **_TRAIN_TEST),
    "fashion_mnist": _torchvision("FashionMNIST", None, **_TRAIN_TEST),
    "imagefolder": Source(_read_folder, _folder_classes, check=_check_folder),
}
