"""Writing .beton files with FFCV, and reading them back to be sure."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from numpy.typing import NDArray

from rrl_dist.data.beton_layout import page_size
from rrl_dist.data.datasets import ImageSet
from rrl_dist.data.ffcv_loader import FfcvLoader, import_ffcv
from rrl_dist.data.folder import FolderImages
from rrl_dist.data.loader import RawBatch

# Of 4,000 CIFAR-10 images the worst is off by 4 levels of 255 at quality 90 and by 13
# at 50; 999 in 1,000 images put in another's place are off by 28 or more.
JPEG_TOLERANCE = 16.0


def write_file(
    image_set: ImageSet,
    path: Path,
    *,
    mode: str,
    quality: int,
    threads: int,
    progress: Callable[[int], None],
) -> None:
    """Write the fields image, label and index, in the order of the set.

    One process writes, so equal sets give equal bytes and an error is raised here:
    FFCV's own writer waits for ever when one of its processes fails.

    Args:
        mode: "raw" or "jpg".
        quality: of JPEG, 1 to 100.
        threads: that decode images of a folder.
        progress: called with the number of samples written.
    """
    ffcv = import_ffcv()
    image = ffcv.RGBImageField(write_mode=mode, jpeg_quality=quality)
    fields = {"image": image, "label": ffcv.IntField(), "index": ffcv.IntField()}
    page = page_size(image_set.size)
    writer = ffcv.DatasetWriter(str(path), fields, page_size=page)
    writer.num_samples = len(image_set)
    writer.prepare()
    writer.metadata_sm.close()  # shared memory is for several processes
    writer.metadata_sm.unlink()
    metadata = np.zeros(len(image_set), dtype=writer.metadata_type)
    names = writer.metadata_type.names
    allocator = ffcv.MemoryAllocator(
        str(path), writer.data_region_start, writer.page_size
    )
    with allocator:
        for i, pixels in enumerate(_pixels(image_set.images, threads)):
            sample = (pixels, int(image_set.labels[i]), int(image_set.index[i]))
            ffcv.handle_sample(sample, i, names, metadata, allocator, fields)
            progress(i + 1)
    writer.metadata_sm = SimpleNamespace(buf=metadata.tobytes())
    writer.finalize(allocator.allocations)


def encode_images(images: FolderImages, *, quality: int) -> list[bytes]:
    """JPEG files of images, as `write_file` stores them.

    Each is decoded again as FFCV's loader does it and compared with the pixels.

    Raises:
        UserError: an image cannot be read.
        ValueError: naming the first that is off by more than `JPEG_TOLERANCE`.
    """
    ffcv = import_ffcv()
    return [_encoded(ffcv, images, i, quality) for i in range(len(images))]


def _encoded(
    ffcv: SimpleNamespace, images: FolderImages, place: int, quality: int
) -> bytes:
    pixels, side = images[place], images.size
    jpeg = ffcv.encode_jpeg(pixels, quality)
    found = np.zeros_like(pixels)
    whole = (side, side, 0, 0, 1, 1, False, False)  # neither cut nor scaled nor turned
    ffcv.imdecode(jpeg, found, side, side, *whole)
    error = float(np.abs(found.astype(np.int16) - pixels).mean())
    if error > JPEG_TOLERANCE:
        raise ValueError(
            f"{images.root / images.files[place]} was not read back as encoded (pixels "
            f"differ by {error:.1f} of 255 on average, {JPEG_TOLERANCE:.1f} allowed)"
        )
    return bytes(jpeg)


def _pixels(
    images: NDArray[np.uint8] | FolderImages, threads: int
) -> Iterator[NDArray[np.uint8]]:
    if not isinstance(images, FolderImages):
        yield from images
        return
    chunk = 64 * max(1, threads)  # bounds what is decoded ahead
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for start in range(0, len(images), chunk):
            places: Sequence[int] = range(start, min(start + chunk, len(images)))
            yield from pool.map(images.__getitem__, places)


def compare_file(
    image_set: ImageSet,
    path: Path,
    *,
    mode: str,
    threads: int,
    progress: Callable[[int], None],
) -> None:
    """Read the whole file back through FFCV and compare it with the set.

    Labels and index must be equal. Pixels must be equal for "raw", and within
    `JPEG_TOLERANCE` levels of 255, averaged over each image, for "jpg".

    Raises:
        ValueError: naming the first sample that differs.
    """
    count, batch = len(image_set), min(256, len(image_set))
    padded = np.arange(-(-count // batch) * batch).clip(max=count - 1)
    loader = FfcvLoader(path, batch_size=batch, threads=threads)
    tolerance = 0.0 if mode == "raw" else JPEG_TOLERANCE
    try:
        for step, found in enumerate(loader.batches(padded)):
            positions = padded[step * batch : (step + 1) * batch]
            _compare(found, image_set.select(positions), threads, tolerance)
            progress(int(positions[-1]) + 1)
    finally:
        loader.close()


def _compare(found: RawBatch, wanted: ImageSet, threads: int, tolerance: float) -> None:
    pixels = np.stack(list(_pixels(wanted.images, threads))).astype(np.int16)
    stored = found.images.permute(0, 2, 3, 1).numpy()
    error = np.abs(stored - pixels).mean(axis=(1, 2, 3))
    wrong = (
        (error > tolerance)
        | (found.labels.numpy() != wanted.labels)
        | (found.index.numpy() != wanted.index)
    )
    if wrong.any():
        first = int(np.flatnonzero(wrong)[0])
        raise ValueError(
            f"sample {wanted.index[first]} was not read back as written (pixels "
            f"differ by {error[first]:.1f} of 255 on average, {tolerance:.1f} allowed)"
        )
