"""FFCV behind our own interface: the only file that imports it.

FFCV decodes and nothing else: its pipelines here are decoders alone, so that none of
its operations can follow one that is not compiled (FFCV would loop for ever), and no
random operation of its own (they cannot be seeded) is used.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from queue import Empty
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rrl_dist.data.loader import RawBatch

_FIRST_BATCH_SECONDS = 300.0
_STOP_SECONDS = 30.0

_open = False


@contextmanager
def _torch_threads_kept() -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        yield
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


@contextmanager
def _plain_dict() -> Iterator[None]:
    """FFCV keeps two names of image modes in a compiled dict, which it reads in Python
    alone, and to compile that takes seconds of each process."""
    if "ffcv" in sys.modules:
        yield
        return
    typed: Any = import_module("numba.typed")
    compiled = typed.Dict
    typed.Dict = dict
    try:
        yield
    finally:
        typed.Dict = compiled


def import_ffcv() -> SimpleNamespace:
    """The names of FFCV that this package uses, without its side effects on torch.

    From here on FFCV sets numba's threads alone: it would set torch's as well, also
    from its loader thread while a training step runs.

    Raises:
        ImportError, OSError: where FFCV or a system library of it is missing.
    """
    # numba's own "workqueue" layer aborts when two threads use it; "threadsafe" is
    # TBB or OpenMP, whichever is there.
    os.environ.setdefault("NUMBA_THREADING_LAYER", "threadsafe")
    with _torch_threads_kept(), _plain_dict():
        from ffcv.fields import IntField, RGBImageField
        from ffcv.fields.basics import IntDecoder
        from ffcv.fields.rgb_image import SimpleRGBImageDecoder, encode_jpeg
        from ffcv.libffcv import imdecode
        from ffcv.loader import Loader
        from ffcv.memory_allocator import MemoryAllocator
        from ffcv.pipeline import compiler
        from ffcv.writer import DatasetWriter, handle_sample

    def set_numba_threads(cls: Any, n: int) -> None:
        cls.num_threads = n
        compiler.set_num_threads(n)

    compiler.Compiler.set_num_threads = classmethod(set_numba_threads)
    return SimpleNamespace(
        DatasetWriter=DatasetWriter,
        IntDecoder=IntDecoder,
        IntField=IntField,
        Loader=Loader,
        MemoryAllocator=MemoryAllocator,
        RGBImageField=RGBImageField,
        SimpleRGBImageDecoder=SimpleRGBImageDecoder,
        encode_jpeg=encode_jpeg,
        imdecode=imdecode,
        handle_sample=handle_sample,
    )


def _available_threads() -> int:
    return int(import_module("numba").config.NUMBA_NUM_THREADS)


class FfcvLoader:
    """A `Loader` over a .beton file; labels and index come from the file.

    Compiling takes seconds for each loader, so a run keeps one. A second one at the
    same time is refused: two can abort the process.

    Args:
        path: a file that `check_beton` has passed.
        batch_size: images in each batch.
        threads: decoding threads; at most as many as numba has are used.

    Raises:
        RuntimeError: if another loader is open.
    """

    def __init__(self, path: Path, *, batch_size: int, threads: int) -> None:
        global _open
        if _open:
            raise RuntimeError("another FFCV loader is open in this process")
        ffcv = import_ffcv()
        with _torch_threads_kept():
            self._loader = ffcv.Loader(
                str(path),
                batch_size=batch_size,
                num_workers=max(1, min(threads, _available_threads())),
                os_cache=True,
                drop_last=True,
                pipelines={
                    "image": [ffcv.SimpleRGBImageDecoder()],
                    "label": [ffcv.IntDecoder()],
                    "index": [ffcv.IntDecoder()],
                },
            )
        self._batch_size = batch_size
        self._closed = False
        _open = True

    def batches(self, positions: NDArray[np.int64]) -> Iterator[RawBatch]:
        """See `Loader.batches`.

        Raises:
            IndexError: for a position that the file does not have.
            RuntimeError: if FFCV stops without an answer.
        """
        if self._closed:
            raise RuntimeError("the loader is closed")
        whole = len(positions) // self._batch_size * self._batch_size
        # One dtype always: another would be compiled anew.
        order = np.ascontiguousarray(positions[:whole], dtype=np.uint64)
        if whole == 0:
            return
        count = int(self._loader.reader.num_samples)
        if positions.min() < 0 or positions.max() >= count:
            raise IndexError(f"a position is outside the file's {count} samples")
        epoch = self._start(order)
        try:
            item = _next_item(epoch, seconds=_FIRST_BATCH_SECONDS)
            while item is not None:
                yield _copied(*item)
                item = _next_item(epoch, seconds=None)
        finally:
            _stop(epoch)

    def _start(self, order: NDArray[np.uint64]) -> Any:
        """FFCV's thread, reading in our order."""
        self._loader.next_traversal_order = lambda: order
        self._loader.first_traversal_order = order  # FFCV's length comes from it
        with _torch_threads_kept():
            return iter(self._loader)

    def close(self) -> None:
        """Let another loader be opened."""
        global _open
        if not self._closed:
            self._closed = True
            self._loader = None
            _open = False


def _next_item(epoch: Any, *, seconds: float | None) -> Any:
    """The next batch or None at the end.

    FFCV's own wait has no end when its thread has failed; this one notices.
    """
    start = time.monotonic()
    while True:
        try:
            item = epoch.output_queue.get(timeout=0.5)
            return None if item is None else item[1]
        except Empty:
            if not epoch.is_alive() and epoch.output_queue.empty():
                raise RuntimeError(
                    "FFCV's loader thread has failed; its error stands above. "
                    "Set loader=memory to go on without FFCV"
                ) from None
            if seconds is not None and time.monotonic() - start > seconds:
                raise RuntimeError(
                    f"FFCV gave no first batch within {seconds:.0f} s. "
                    "Set loader=memory to go on without FFCV"
                ) from None


def _copied(images: Any, labels: Any, index: Any) -> RawBatch:
    """FFCV writes into these buffers again."""
    return RawBatch(
        torch.from_numpy(images)
        .permute(0, 3, 1, 2)
        .clone(memory_format=torch.contiguous_format),
        torch.from_numpy(labels).flatten().clone(),
        torch.from_numpy(index).flatten().clone(),
    )


def _stop(epoch: Any) -> None:
    """End FFCV's thread, early or not.

    Left alone it keeps its thread and buffers for ever. It looks for its end only
    between batches and waits for room in the queue to say so, hence the two steps.
    """
    epoch.iter_ixes = iter(())
    deadline = time.monotonic() + _STOP_SECONDS
    while epoch.is_alive() and time.monotonic() < deadline:
        try:
            epoch.output_queue.get(timeout=0.01)
        except Empty:
            continue
    epoch.close()
