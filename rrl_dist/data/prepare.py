"""The `.beton` file of a set: where it is, and writing it if it is missing."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import file_hash, read_json, write_json
from rrl_dist.data.beton import beton_path, beton_problem, write_beton
from rrl_dist.data.datasets import ImageSet
from rrl_dist.data.folder import FolderImages
from rrl_dist.data.loader import FFCV_MEND

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
) -> Path:
    """Write a set's file unless it is there and holds the set; returns it.

    Args:
        folder: where `.beton` files are kept.
        images: the set.
        workers: threads that decode.
        progress: called with the total, returns what is called with each advance.
        notify: told in one line about a file that is there and cannot be used.

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
    advance = progress(2 * len(images))
    told = 0

    def tell(done: int, total: int) -> None:
        nonlocal told
        advance(done - told)
        told = done

    mode = stored_as(images)
    write_beton(
        images, path, mode=mode, quality=JPEG_QUALITY, workers=workers, progress=tell
    )
    write_json(_seal(path), {"sha256": file_hash(path)})
    return path


def _seal(path: Path) -> Path:
    return path.with_suffix(".json")


def _problem(path: Path, images: ImageSet) -> str | None:
    """Why the file is not the one that was once read back and compared."""
    problem = beton_problem(path, images)
    if problem is not None:
        return problem
    try:
        sealed = read_json(_seal(path))["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"has no seal in {_seal(path).name}"
    return None if sealed == file_hash(path) else "is damaged: its hash has changed"
