"""Batches without FFCV: from an array, or decoded by a torch DataLoader."""

from collections.abc import Iterator
from multiprocessing import resource_tracker
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from rrl_dist.core.errors import UserError
from rrl_dist.core.interrupts import unheard_by_children
from rrl_dist.data.datasets import ImageSet
from rrl_dist.data.folder import FolderImages
from rrl_dist.data.loader import RawBatch

_Positions = NDArray[np.int64]


class _Batches(Dataset[RawBatch | UserError]):
    """A set whose items are whole batches, keyed by their positions."""

    def __init__(self, images: ImageSet) -> None:
        self.images = images

    def __getitem__(self, positions: _Positions) -> RawBatch | UserError:
        try:
            pixels = self._pixels(positions)
        except UserError as error:
            # Returned: raised, a DataLoader would wrap it in a traceback.
            return error
        return RawBatch(
            torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(),
            torch.from_numpy(self.images.labels[positions]),
            torch.from_numpy(self.images.index[positions]),
        )

    def _pixels(self, positions: _Positions) -> NDArray[np.uint8]:
        images = self.images.images
        if isinstance(images, FolderImages):
            return np.stack([images[int(i)] for i in positions])
        return images[positions]


class _Order(Sampler[_Positions]):
    """The positions of the batches to come; set anew for each epoch."""

    batches: list[_Positions]

    def __iter__(self) -> Iterator[_Positions]:
        return iter(self.batches)


def _as_is(batch: Any) -> Any:
    """Items are batches already."""
    return batch


class MemoryLoader:
    """A `Loader` over an `ImageSet`.

    Args:
        images: an array is indexed in this process; a folder is decoded by
            `workers` processes that live as long as the loader.
        batch_size: images in each batch.
        workers: 0 decodes in this process.
    """

    def __init__(self, images: ImageSet, *, batch_size: int, workers: int) -> None:
        self._images = images
        self._batch_size = batch_size
        self._order = _Order()
        processes = workers if isinstance(images.images, FolderImages) else 0
        self._loader: DataLoader[RawBatch | UserError] | None = DataLoader(
            _Batches(images),
            batch_size=None,
            sampler=self._order,
            collate_fn=_as_is,
            num_workers=processes,
            # A fork of a process with threads (torch, Ray, FFCV) may hang.
            multiprocessing_context="spawn" if processes else None,
            persistent_workers=processes > 0,
            # Otherwise each epoch would draw from torch's global generator.
            generator=torch.Generator(),
        )

    def batches(self, positions: NDArray[np.int64]) -> Iterator[RawBatch]:
        """See `Loader.batches`; raises UserError for an image it cannot read."""
        if self._loader is None:
            raise RuntimeError("the loader is closed")
        n = self._batch_size
        whole = len(positions) // n * n
        self._order.batches = [positions[i : i + n] for i in range(0, whole, n)]
        for batch in self._started(self._loader):
            if isinstance(batch, UserError):
                raise batch
            yield batch

    def _started(self, loader: DataLoader[Any]) -> Iterator[Any]:
        """The loader's iterator, with the decoding processes that it may need."""
        if loader.num_workers == 0:
            return iter(loader)
        # Where it is not running yet, its start would end the block's effect.
        resource_tracker.ensure_running()
        with unheard_by_children():
            return iter(loader)

    def close(self) -> None:
        """Stop the decoding processes."""
        self._loader = None


def read_images(images: ImageSet, positions: NDArray[np.int64]) -> torch.Tensor:
    """[N, 3, H, W] uint8, the stored images at `positions`.

    Raises:
        UserError: an image cannot be read.
    """
    batch = _Batches(images)[positions]
    if isinstance(batch, UserError):
        raise batch
    return batch.images
