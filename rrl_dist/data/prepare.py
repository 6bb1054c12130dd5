"""The `.beton` file of a set: where it is, and writing it if it is missing."""

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path

from rrl_dist.core.display import Display
from rrl_dist.core.errors import UserError
from rrl_dist.core.interrupts import check_answered
from rrl_dist.data.beton import beton_path, beton_problem, write_beton
from rrl_dist.data.datasets import ImageSet
from rrl_dist.data.folder import FolderImages
from rrl_dist.data.loader import FFCV_MEND
from rrl_dist.data.seal import current_hash, seal, seal_path, sealed_hash
from rrl_dist.data.shards import Encoder, write_encoded

JPEG_QUALITY = 90


def stored_as(images: ImageSet) -> str:
    """ "raw" for what fits memory: exact and fast; "jpg" for a folder that does not."""
    return "jpg" if isinstance(images.images, FolderImages) else "raw"


def beton_of(folder: Path, images: ImageSet) -> Path:
    """Where the file of a set is, or would be."""
    return beton_path(folder, images, stored_as(images))


def prepare_beton(
    folder: Path,
    images: ImageSet,
    *,
    workers: int,
    progress: Callable[[int], Callable[[int], None]],
    notify: Callable[[str], None],
    encoder: Encoder | None = None,
) -> Path:
    """Write a set's file unless it is there and holds the set; returns it.

    Args:
        folder: where `.beton` files are kept.
        images: the set.
        workers: threads that decode here.
        progress: called with the total, returns what is called with each advance.
        notify: told in one line about a file that is there and cannot be used.
        encoder: decodes and encodes images of a folder elsewhere; None: here.

    Raises:
        UserError: FFCV is missing, or the disk refuses the file.
    """
    path = beton_of(folder, images)
    if path.is_dir():
        raise UserError(f"{path} is a folder where a file is wanted; remove it")
    problem = _problem(path, images) if path.exists() else "is not there"
    if problem is None:
        return path
    if find_spec("ffcv") is None:
        raise UserError(f"FFCV is not installed; {FFCV_MEND}")
    if path.exists():
        notify(f"{path} {problem}; writing it again")
    _write(images, path, workers, progress, notify, encoder)
    seal(path)
    return path


def prepare_betons(
    folder: Path,
    sets: Iterable[ImageSet],
    display: Display,
    *,
    workers: int,
    needed: bool,
) -> dict[str, Path]:
    """The files of several sets, by fingerprint; of none where FFCV is missing.

    Args:
        folder, workers: see `prepare_beton`.
        sets: that are trained on.
        display: what a person sees.
        needed: whether they cannot be read otherwise.

    Raises:
        UserError: see `prepare_beton`, where they are needed.
    """
    found: dict[str, Path] = {}
    for images in sets:
        try:
            found[images.fingerprint] = prepare_beton(
                folder,
                images,
                workers=workers,
                progress=display.counting(f"writing {images.name}.beton"),
                notify=display.notify,
            )
        except UserError as error:
            if needed:
                raise
            display.notify(f"images are read from memory: {error}")
            return {}
    return found


def _write(
    images: ImageSet,
    path: Path,
    workers: int,
    progress: Callable[[int], Callable[[int], None]],
    notify: Callable[[str], None],
    encoder: Encoder | None,
) -> None:
    pixels, told = images.images, 0
    if encoder is not None and not isinstance(pixels, FolderImages):
        notify(f"{images.name} is in memory: it is written here, without tasks")
    advance = progress(2 * len(images))

    def tell(done: int, total: int) -> None:
        nonlocal told
        check_answered()
        advance(done - told)
        told = done

    if encoder is not None and isinstance(pixels, FolderImages):
        encoded = encoder(pixels, JPEG_QUALITY)
        write_encoded(images, path, encoded, progress=tell)
        return
    mode = stored_as(images)
    write_beton(
        images, path, mode=mode, quality=JPEG_QUALITY, workers=workers, progress=tell
    )


def _problem(path: Path, images: ImageSet) -> str | None:
    """Why the file is not the one that was once read back and compared."""
    problem = beton_problem(path, images)
    if problem is not None:
        return problem
    sealed = sealed_hash(path)
    if sealed is None:
        return f"has no seal in {seal_path(path).name}"
    return None if sealed == current_hash(path) else "is damaged: its hash has changed"
