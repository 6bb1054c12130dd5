"""Folders of image files, one sub-folder a class."""

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from rrl_dist.core.errors import UserError

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".tif", ".tiff", ".webp"}
# What Pillow raises on damaged files; a bomb is an image beyond its pixel limit.
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FolderImages:
    """Images decoded when they are asked for.

    Attributes:
        root: the folder that `files` are relative to.
        files: relative paths, with forward slashes.
        lengths: bytes of each file, for the fingerprint.
        size: side of the square images that come out.
    """

    root: Path
    files: tuple[str, ...]
    lengths: tuple[int, ...]
    size: int

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, position: int) -> NDArray[np.uint8]:
        """[size, size, 3] uint8; raises UserError that names a file it cannot read."""
        return read_image(self.root / self.files[position], size=self.size)

    def select(self, positions: NDArray[np.int64]) -> "FolderImages":
        """The images at `positions`, in that order."""
        files = tuple(self.files[i] for i in positions)
        lengths = tuple(self.lengths[i] for i in positions)
        return FolderImages(self.root, files, lengths, self.size)


@dataclass(frozen=True)
class Listing:
    """A folder's files and classes; no image has been decoded.

    Attributes:
        images: the files, class by class in sorted order.
        labels: [N] int64, place of the class in `classes`.
        classes: sorted names of the sub-folders.
    """

    images: FolderImages
    labels: NDArray[np.int64]
    classes: tuple[str, ...]


def read_image(path: Path, *, size: int) -> NDArray[np.uint8]:
    """Decode to [size, size, 3] uint8: short side to `size`, then the centre.

    Raises:
        UserError: naming the file, if it cannot be decoded.
    """
    try:
        with Image.open(path) as file:
            image = _as_rgb(file)
    except _UNREADABLE as error:
        raise _unreadable(path, error) from error
    return _square(image, size)


def _unreadable(path: Path, error: BaseException) -> UserError:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    if isinstance(error, UnidentifiedImageError):
        reason = "it is not an image"
    return UserError(
        f"cannot read the image {path} ({reason.splitlines()[0]}); "
        "replace or remove it, or set data.on_error=skip"
    )


def _as_rgb(file: Image.Image) -> Image.Image:
    """Eight bits a channel; of several pictures in a file the first.

    Raises:
        ValueError: pixels without a known range.
    """
    if file.mode.startswith(("I", "F")):
        # Pillow's own conversion cuts at 255, which makes sixteen bits all white.
        pixels = np.asarray(file)
        if file.mode == "F" or pixels.min() < 0 or pixels.max() >= 1 << 16:
            raise ValueError("its pixels are neither of 8 nor of 16 bits")
        return Image.fromarray((pixels >> 8).astype(np.uint8)).convert("RGB")
    if "transparency" in file.info:
        # The same colours; straight to RGB, Pillow warns of each such file.
        return file.convert("RGBA").convert("RGB")
    return file.convert("RGB")


def _square(image: Image.Image, size: int) -> NDArray[np.uint8]:
    width, height = image.size
    scale = size / min(width, height)
    wide, high = max(size, round(width * scale)), max(size, round(height * scale))
    if (wide, high) != image.size:
        image = image.resize((wide, high), Image.Resampling.BILINEAR)
    left, top = (wide - size) // 2, (high - size) // 2
    return np.array(image.crop((left, top, left + size, top + size)))


def class_folders(folder: Path) -> tuple[str, ...]:
    """Sorted names of the sub-folders.

    Raises:
        UserError: if the folder is missing, or no sub-folder holds an image.
    """
    layout = "set data.root to a folder with train/CLASS/*.jpg or CLASS/*.jpg"
    if not folder.is_dir():
        raise UserError(f"no folder {folder}; {layout}")
    entries = (entry for entry in _entries(folder) if entry.is_dir())
    names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    if not any(_is_image(path) for name in names for path in _entries(folder / name)):
        raise UserError(f"no CLASS/*.jpg in {folder}; {layout}")
    for name in names:
        if not name.isprintable():
            raise UserError(
                f"the class folder {name!r} in {folder} has a name that is not "
                "readable as UTF-8; rename it"
            )
    return tuple(names)


def _entries(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise UserError(
            f"cannot list the folder {folder} ({error.strerror}); make it readable"
        ) from None


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES and not path.name.startswith(".")


def list_folder(folder: Path, *, size: int) -> Listing:
    """List `folder`/CLASS/* in sorted order, files directly in the class's folder.

    Raises:
        UserError: as `class_folders`.
    """
    classes = class_folders(folder)
    files: list[str] = []
    lengths: list[int] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        for path in sorted(filter(_is_image, _entries(folder / name))):
            files.append(f"{name}/{path.name}")
            lengths.append(_length(path))
            labels.append(label)
    images = FolderImages(folder, tuple(files), tuple(lengths), size)
    return Listing(images, np.array(labels, dtype=np.int64), classes)


def _length(path: Path) -> int:
    """In bytes; 0 of a link to nowhere, which is told of when it is read."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def check_headers(images: FolderImages) -> None:
    """Open each file without decoding it.

    Raises:
        UserError: naming the first that is no image.
    """
    paths = (images.root / file for file in images.files)
    with ThreadPoolExecutor() as pool:
        found = next(filter(None, pool.map(_wrong_header, paths)), None)
    if found is not None:
        raise found


def _wrong_header(path: Path) -> UserError | None:
    try:
        with Image.open(path):
            return None
    except _UNREADABLE as error:
        return _unreadable(path, error)


def decode(images: FolderImages) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Decode all into memory.

    Returns:
        [N, size, size, 3] uint8, and [N] bool: which could be read; the others are
        black.
    """
    out = np.zeros((len(images), images.size, images.size, 3), dtype=np.uint8)

    def keep(position: int) -> bool:
        try:
            out[position] = images[position]
        except UserError:
            return False
        return True

    # Pillow decodes without holding the interpreter's lock.
    with ThreadPoolExecutor() as pool:
        readable = np.fromiter(pool.map(keep, range(len(images))), dtype=np.bool_)
    return out, readable


def readable(images: FolderImages) -> NDArray[np.bool_]:
    """[N] bool: which can be decoded. Decodes each image and keeps none."""

    def can_read(position: int) -> bool:
        try:
            images[position]
        except UserError:
            return False
        return True

    with ThreadPoolExecutor() as pool:
        return np.fromiter(pool.map(can_read, range(len(images))), dtype=np.bool_)


def report_unreadable(
    images: FolderImages, good: NDArray[np.bool_], *, skip: bool
) -> None:
    """Log how many images are left out, or raise the error of the first of them."""
    bad = np.flatnonzero(~good)
    if len(bad) == 0:
        return
    if not skip:
        images[int(bad[0])]
    _tell_skipped(len(bad), len(images), images.root / images.files[bad[0]])


@cache  # a stage reads again what the check before it has read
def _tell_skipped(bad: int, count: int, first: Path) -> None:
    told = "skipped %d of %d images that cannot be read, the first: %s"
    _log.warning(told, bad, count, first)
