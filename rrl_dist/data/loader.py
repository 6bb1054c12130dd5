"""Batches of stored images in an order that the caller gives."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from rrl_dist.core.errors import UserError
from rrl_dist.data.beton import check_beton
from rrl_dist.data.datasets import ImageSet

KINDS = ("auto", "ffcv", "memory")
FFCV_MEND = (
    "apt-get install libopencv-dev libturbojpeg0-dev pkg-config g++, then "
    "pip install ffcv==1.0.2 setuptools"
)


@dataclass(frozen=True)
class RawBatch:
    """Stored images, not augmented; the tensors are the receiver's to keep.

    Attributes:
        images: [N, 3, H, W] uint8, contiguous; or [N, D] float32, a frozen encoder's
            features in place of images.
        labels: [N] int64; -1 where there is none.
        index: [N] int64, each sample's place in its data set.
    """

    images: Tensor
    labels: Tensor
    index: Tensor


class Loader(Protocol):
    """What training reads from; kept open for a whole run."""

    def batches(self, positions: NDArray[np.int64]) -> Iterator[RawBatch]:
        """Visit exactly `positions` of the set, in that order, in whole batches.

        What is left beyond the last whole batch is not visited. The iterator may be
        dropped early; one at a time.
        """
        ...

    def close(self) -> None:
        """Stop threads and processes; the loader is not used again."""
        ...


def open_loader(
    *,
    kind: str,
    images: ImageSet,
    beton: Path | None,
    batch_size: int,
    workers: int,
    notify: Callable[[str], None],
) -> Loader:
    """Open the loader of a run.

    Args:
        kind: "ffcv", "memory", or "auto": FFCV where it can be imported and the
            file is there, else memory, with one line to `notify` that says why.
        images: the set that positions count in.
        beton: the set's .beton file, or None.
        batch_size: images in each of this worker's batches.
        workers: decoding threads of FFCV; processes that decode a folder that does
            not fit memory, 0 for none.

    Raises:
        UserError: if "ffcv" was asked for and cannot be had, or the .beton file is
            damaged or holds another set.
    """
    # The loaders import RawBatch from here.
    from rrl_dist.data.memory_loader import MemoryLoader

    if kind not in KINDS:
        raise UserError(f"no loader {kind!r}; choose one of {', '.join(KINDS)}")
    if kind == "memory":
        return MemoryLoader(images, batch_size=batch_size, workers=workers)
    problem = _ffcv_problem(beton)
    if problem is None and beton is not None:
        from rrl_dist.data.ffcv_loader import FfcvLoader

        check_beton(beton, images)
        return FfcvLoader(beton, batch_size=batch_size, threads=workers)
    if kind == "ffcv":
        raise UserError(f"FFCV cannot be used: {problem}")
    notify(f"reading images without FFCV: {problem}")
    return MemoryLoader(images, batch_size=batch_size, workers=workers)


def _ffcv_problem(beton: Path | None) -> str | None:
    """Why FFCV cannot serve, and the mend; the costly import is tried last."""
    if find_spec("ffcv") is None:
        return f"it is not installed; {FFCV_MEND}"
    if beton is None or not beton.exists():
        return f"there is no {beton or '.beton file'}; write it with rrl prepare"
    from rrl_dist.data.ffcv_loader import import_ffcv

    try:
        import_ffcv()
    # A build against missing or other system libraries fails in many ways.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return f"it cannot be imported ({reason}); {FFCV_MEND}"
    return None
