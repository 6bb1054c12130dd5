"""Published corrupted test sets, read from their files.

CIFAR-10-C and CIFAR-100-C (zenodo.org/records/2535967 and 3555552): KIND.npy, uint8
[50000, 32, 32, 3], the 10,000 test images in their own order at severity 1, then at 2,
and so on; labels.npy. ImageNet-C (zenodo.org/records/2235448):
KIND/SEVERITY/WNID/*.JPEG, named as the validation images are.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrl_dist.core.errors import UserError
from rrl_dist.core.randomness import stream
from rrl_dist.data.folder import read_image

KEY = "suite.corruptions.folder"
LABELS = "labels.npy"
_SEVERITIES = 5
_SAMPLED = 64  # images of each kind and severity that tell one set from another
_MEND = f"give the folder of CIFAR-10-C, CIFAR-100-C or ImageNet-C, or {KEY}=null"


@dataclass(frozen=True)
class Published:
    """A folder of one of these sets.

    Attributes:
        folder: it holds KIND.npy and labels.npy, or KIND/SEVERITY/CLASS/*.JPEG.
    """

    folder: str

    @property
    def arrays(self) -> bool:
        """Whether it has the form of CIFAR's sets."""
        return (Path(self.folder) / LABELS).is_file()

    def __len__(self) -> int:
        """Test images."""
        return len(self.labels()) if self.arrays else len(self._names)

    def check(self, kinds: Sequence[str], severities: Sequence[int]) -> None:
        """See whether files of these kinds are there, without reading any.

        Raises:
            UserError: the folder or a kind is missing, or an array has another form.
        """
        root = Path(self.folder)
        if not root.is_dir():
            raise UserError(f"{KEY}={self.folder} is no folder; {_MEND}")
        if not self.arrays and not any((root / kind / "1").is_dir() for kind in kinds):
            raise UserError(f"{root} has neither {LABELS} nor KIND/SEVERITY; {_MEND}")
        for kind in kinds:
            for severity in severities:
                self._check(root, kind, severity)

    def _check(self, root: Path, kind: str, severity: int) -> None:
        if self.arrays:
            self._array(kind)
        elif not (root / kind / str(severity)).is_dir():
            raise UserError(
                f"{root} has no {kind}/{severity}; unpack it there, or leave {kind} "
                "out of suite.corruptions.kinds"
            )

    def images(
        self, kind: str, severity: int, index: NDArray[np.int64], *, size: int
    ) -> NDArray[np.uint8]:
        """[N, size, size, 3]: test images at their places in the test set.

        Raises:
            UserError: a file is missing or cannot be read, or arrays are of another
                size.
        """
        if self.arrays:
            array = self._array(kind)
            if array.shape[1] != size:
                side = array.shape[1]
                raise UserError(
                    f"{self.folder} has images of {side} px, and the data of {size}; "
                    f"set data.size={side}"
                )
            return np.asarray(array[(severity - 1) * len(self) + index])
        root = Path(self.folder) / kind / str(severity)
        names = [self._names[place] for place in index.tolist()]
        return np.stack([read_image(root / name, size=size) for name in names])

    def labels(self) -> NDArray[np.int64]:
        """[n] of the test images, by the data set's own numbers; of arrays alone.

        Raises:
            UserError: they are no five times the same.
        """
        path = Path(self.folder) / LABELS
        found = _load(path)
        severities = found.reshape(_SEVERITIES, -1) if _fivefold(found, 1) else None
        if severities is None or not (severities == severities[0]).all():
            raise UserError(
                f"{path} is {found.dtype} {list(found.shape)}, and should be five "
                "times the labels of the test images; fetch it again"
            )
        labels: NDArray[np.int64] = severities[0].astype(np.int64)
        return labels

    @property
    def _names(self) -> tuple[str, ...]:
        return names_below(self.folder)

    def names(self) -> tuple[str, ...]:
        """CLASS/FILE of the test images in sorted order; of folders alone."""
        return self._names

    def _array(self, kind: str) -> NDArray[np.uint8]:
        path = Path(self.folder) / f"{kind}.npy"
        if not path.is_file():
            raise UserError(
                f"{self.folder} has no {path.name}; fetch it, or leave {kind} out of "
                "suite.corruptions.kinds"
            )
        found, count = _load(path), len(self)
        side = found.shape[1] if found.ndim == 4 else 0
        wanted = (_SEVERITIES * count, side, side, 3)
        if found.dtype != np.uint8 or found.shape != wanted or side == 0:
            raise UserError(
                f"{path} is {found.dtype} {list(found.shape)}, and should be uint8 "
                f"[{wanted[0]}, H, H, 3], five severities of {count} images; fetch it "
                "again"
            )
        return found

    def fingerprint(self, kinds: Sequence[str], severities: Sequence[int]) -> str:
        """sha256, in hexadecimal, over the labels or names, and over the bytes of 64
        images of each kind and severity at places that are always the same.

        Hashing gigabytes at each start would take minutes, of millions of small files
        hours; a set that differs in few images is not told apart.
        """
        digest = hashlib.sha256()
        order = stream(0, "published").permutation(len(self))[:_SAMPLED]
        places = np.sort(order)
        digest.update(repr((len(self), kinds, severities)).encode())
        told = self.labels().tolist() if self.arrays else self._names
        digest.update(repr(told).encode())
        for kind in kinds:
            for severity in severities:
                digest.update(self._bytes(kind, severity, places))
        return digest.hexdigest()

    def _bytes(self, kind: str, severity: int, places: NDArray[np.int64]) -> bytes:
        if self.arrays:
            rows = self._array(kind)[(severity - 1) * len(self) + places]
            return rows.tobytes()
        root = Path(self.folder) / kind / str(severity)
        files = [root / self._names[place] for place in places.tolist()]
        try:
            return b"".join(file.read_bytes() for file in files)
        except OSError as error:
            raise UserError(
                f"cannot read {error.filename} ({error.strerror}); unpack {kind} again"
            ) from None


@cache
def names_below(folder: str) -> tuple[str, ...]:
    """CLASS/FILE below the first KIND/1 there is, in sorted order: those of all."""
    kinds = sorted(p for p in Path(folder).iterdir() if (p / "1").is_dir())
    found = []
    for group in sorted(entry.name for entry in os.scandir(kinds[0] / "1")):
        files = sorted(entry.name for entry in os.scandir(kinds[0] / "1" / group))
        found += [f"{group}/{file}" for file in files]
    return tuple(found)


def _load(path: Path) -> NDArray[Any]:
    try:
        found: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        raise UserError(f"{path} is no array of numpy's; fetch it again") from None
    return found


def _fivefold(array: NDArray[Any], ndim: int) -> bool:
    return array.ndim == ndim and len(array) > 0 and len(array) % _SEVERITIES == 0
