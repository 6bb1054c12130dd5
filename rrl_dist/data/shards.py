"""Image files encoded in shards, wherever that is, and joined to one `.beton` file.

The file has the bytes that one process would have written with FFCV's own writer, which
cannot be given images that are encoded already. Nothing here imports FFCV.
"""

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from rrl_dist.core.storage import atomic_path
from rrl_dist.data.beton import check_beton
from rrl_dist.data.beton_layout import (
    ALLOCATION,
    FIELD,
    FIELDS,
    HEADER,
    JPEG,
    SAMPLE,
    VERSION,
    data_start,
    page_size,
)
from rrl_dist.data.datasets import ImageSet
from rrl_dist.data.folder import FolderImages

# JPEG files of images, in their order; read back by whoever encoded them.
Encoded = Iterable[Sequence[bytes]]
Encoder = Callable[[FolderImages, int], Encoded]

_SHARD = 1 << 24  # bytes of decoded pixels; compressed they are a few megabytes
_MOST = 512  # images, so that progress is seen


def shards_of(images: FolderImages) -> Iterator[FolderImages]:
    """Runs of images that are encoded together."""
    size = max(1, min(_MOST, _SHARD // (3 * images.size**2)))
    for start in range(0, len(images), size):
        yield images.select(np.arange(start, min(start + size, len(images))))


def write_encoded(
    image_set: ImageSet,
    path: Path,
    encoded: Encoded,
    *,
    progress: Callable[[int, int], None],
) -> None:
    """Join encoded images to a file, read their bytes back, and only then name it.

    Args:
        image_set: of images that are decoded on demand.
        path: see `beton_path`.
        encoded: in the order of the set.
        progress: called with (done, total), see `write_beton`.

    Raises:
        UserError: an image cannot be read, or the disk refuses the file.
        RuntimeError: the file does not give back what was written. In each case nothing
            is left.
    """
    total = 2 * len(image_set)
    with atomic_path(path) as temporary:
        with temporary.open("r+b") as file:
            sums = _write(file, image_set, encoded, lambda done: progress(done, total))
        _compare(temporary, sums)
        progress(total, total)
        check_beton(temporary, image_set)


def _write(
    file: BinaryIO,
    image_set: ImageSet,
    encoded: Encoded,
    progress: Callable[[int], None],
) -> list[int]:
    """Write the whole file; returns each image's checksum."""
    count, page = len(image_set), page_size(image_set.size)
    places = np.zeros(count, dtype=ALLOCATION)
    sums: list[int] = []
    place = -(-data_start(count) // page) * page
    for shard in encoded:
        if len(sums) + len(shard) > count:
            raise RuntimeError(f"more than {count} images were encoded")
        for image in shard:
            if page - place % page < len(image):
                place += -place % page
            file.seek(place)
            file.write(image)
            places[len(sums)] = (len(sums), place, len(image))
            place += len(image)
            sums.append(zlib.crc32(image))
        progress(len(sums))
    if len(sums) < count:
        raise RuntimeError(f"{len(sums)} images were encoded, not {count}")
    table = place + -place % page
    file.seek(table)
    file.write(places.tobytes())
    file.seek(0)
    file.write(_head(image_set, places, page, table))
    return sums


def _head(
    image_set: ImageSet, places: NDArray[np.void], page: int, table: int
) -> bytes:
    """Header, fields and records."""
    header = np.zeros(1, dtype=HEADER)
    header[0] = (VERSION, len(FIELDS), page, len(image_set), table)
    fields = np.zeros(len(FIELDS), dtype=FIELD)
    for field, (kind, name) in zip(fields, FIELDS, strict=True):
        field["type_id"] = kind
        field["name"][: len(name)] = np.frombuffer(name.encode(), dtype=np.uint8)
    records = np.zeros(len(image_set), dtype=SAMPLE)
    records["image"]["mode"] = JPEG
    records["image"]["width"] = records["image"]["height"] = image_set.size
    records["image"]["data_ptr"] = places["ptr"]
    records["label"], records["index"] = image_set.labels, image_set.index
    return header.tobytes() + fields.tobytes() + records.tobytes()


def _compare(path: Path, sums: Sequence[int]) -> None:
    table = int(np.fromfile(path, HEADER, 1)[0]["alloc_table_ptr"])
    places = np.fromfile(path, ALLOCATION, len(sums), offset=table)
    with path.open("rb") as file:
        for number, (_, place, size) in enumerate(places.tolist()):
            file.seek(place)
            if zlib.crc32(file.read(size)) != sums[number]:
                raise RuntimeError(f"image {number} was not read back as written")
