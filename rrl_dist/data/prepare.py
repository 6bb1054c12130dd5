"""The `.beton` file of a set: where it is, and writing it if it is missing."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import file_hash, read_json, write_json
from rrl_dist.data.beton import beton_path, check_beton, write_beton
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
) -> Path:
    """Write a set's file unless it is there and holds the set; returns it.

    Args:
        folder: where `.beton` files are kept.
        images: the set.
        workers: threads that decode.
        progress: called with the total, returns what is called with each advance.

    Raises:
        UserError: FFCV is missing, or the disk refuses the file.
    """
    path = beton_of(folder, images)
    if _as_written(path, images):
        return path
    if find_spec("ffcv") is None:
        raise UserError(f"FFCV is not installed; {FFCV_MEND}")
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


def _as_written(path: Path, images: ImageSet) -> bool:
    """Whether the file is there, whole, and what was once read back and compared."""
    if not (path.is_file() and _seal(path).is_file()):
        return False
    try:
        check_beton(path, images)
        return bool(read_json(_seal(path))["sha256"] == file_hash(path))
    except (UserError, ValueError, KeyError):
        return False
