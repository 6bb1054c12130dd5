"""A frozen encoder's features of all training images, on disk in shards.

Each worker computes the shards whose number is its own; all read all of them. A shard
holds a fixed run of images, whatever the number of workers, and says what it is of: a
stage that is started again, on other workers too, computes what is missing or damaged.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from rrl_dist.attacks.micro_batches import call_size, in_micro_batches
from rrl_dist.core.collectives import barrier, rank, world_size
from rrl_dist.core.errors import UserError
from rrl_dist.core.modes import evaluating
from rrl_dist.core.storage import write_bytes
from rrl_dist.data.datasets import ImageSet
from rrl_dist.data.loader import RawBatch
from rrl_dist.data.memory_loader import read_images
from rrl_dist.data.views import Views
from rrl_dist.models.artefact import load_artefact
from rrl_dist.objectives.objective import Objective, name_of

IMAGES = 1024  # of a shard
_FOLDER = "features"


def check_features(objective: Objective, views: Views) -> None:
    """Hold a method and its views against features that are computed once.

    Raises:
        UserError: the encoder changes, images do, or the method attacks them.
    """
    mend = "set protocol.cache_features=false"
    if any(views.policies):
        raise UserError(
            "features are computed once, and views= draws an image anew each time; set "
            f"views@protocol.views=none, or {mend}"
        )
    learns = any(p.requires_grad for p in objective.encoder.parameters())
    if learns or not objective.reads_features:
        raise UserError(
            f"{name_of(objective)} trains on more than a frozen encoder's features of "
            f"clean images, which are all that is kept; {mend}"
        )


@dataclass(frozen=True)
class Shards:
    """The features of a stage.

    Attributes:
        folder: of the stage; every worker can read and write it.
        images: the set.
        encoder: sha256 of its weights.
    """

    folder: Path
    images: ImageSet
    encoder: str

    @property
    def count(self) -> int:
        """How many there are."""
        return -(-len(self.images) // IMAGES)

    def path(self, number: int) -> Path:
        """The file of a shard."""
        return self.folder / _FOLDER / f"{number:05d}.safetensors"

    def positions(self, number: int) -> NDArray[np.int64]:
        """Of its images in the set."""
        end = min((number + 1) * IMAGES, len(self.images))
        return np.arange(number * IMAGES, end)

    def write(self, number: int, h: Tensor) -> None:
        """Keep features [N, D] float32 of a shard's images."""
        about = self._about(number, h)
        write_bytes(self.path(number), save({"features": h}, metadata=about))

    def read(self, number: int) -> Tensor | None:
        """Features [N, D] float32; None where the file is missing, damaged, or of other
        weights or images."""
        try:
            # Not mapped into memory: a file that is cut short would end the process.
            content = self.path(number).read_bytes()
            h, about = load(content)["features"], _metadata(content)
        except (SafetensorError, OSError, ValueError, LookupError):
            return None
        whole = h.dtype == torch.float32 and h.ndim == 2
        return h if whole and about == self._about(number, h) else None

    def remove(self) -> None:
        """Nobody needs them any more."""
        shutil.rmtree(self.folder / _FOLDER, ignore_errors=True)

    def _about(self, number: int, h: Tensor) -> dict[str, str]:
        """What a shard says it is of, and the hash of its content."""
        return {
            "encoder": self.encoder,
            "images": self.images.fingerprint,
            "number": f"{number} of {self.count}",
            "sha256": hashlib.sha256(h.contiguous().numpy().data).hexdigest(),
        }


def _metadata(content: bytes) -> Any:
    """Of a safetensors file: its header is JSON, behind eight bytes of its length."""
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]).get("__metadata__")


def features_of(
    shards: Shards,
    encoder: nn.Module,
    device: torch.device,
    notify: Callable[[str], None],
) -> Tensor:
    """[N, D] float32 on the host, of all images of the set in their order.

    Args:
        shards: those that are there are taken.
        encoder: frozen, and whole on each worker; it is called at one fixed shape.
        device: of this worker.
        notify: told of what is found from an earlier attempt, on the first worker.

    Raises:
        UserError: an image cannot be read, or a shard cannot be kept.
    """
    own = range(rank(), shards.count, world_size())
    missing = [number for number in own if shards.read(number) is None]
    damaged = [number for number in missing if shards.path(number).is_file()]
    for number in damaged:
        notify(f"{shards.path(number)} is damaged or of another encoder; made anew")
    if len(missing) < len(own):
        notify(f"{len(own) - len(missing)} of {len(own)} shards of features are there")
    for number in missing:
        images = read_images(shards.images, shards.positions(number))
        shards.write(number, _computed(encoder, images, device))
    barrier()
    found = [shards.read(number) for number in range(shards.count)]
    whole = [h for h in found if h is not None]
    if len(whole) < len(found):
        lost = shards.path(next(i for i, h in enumerate(found) if h is None))
        raise UserError(f"{lost} was damaged as it was written; start the run again")
    return torch.cat(whole)


@torch.no_grad()
def _computed(encoder: nn.Module, images: Tensor, device: torch.device) -> Tensor:
    """[N, 3, H, W] uint8 -> [N, D] float32 on the host."""

    def ask(x: Tensor) -> tuple[Tensor]:
        return (encoder(x.to(device).float() / 255).float().cpu(),)

    with evaluating(encoder):
        (h,) = in_micro_batches(ask, images, size=call_size(device))
    return h


class FeatureLoader:
    """A `Loader` whose images are their features, [N, D] float32.

    Args:
        features: of the set, in its order.
        images: the set.
        batch_size: of each of this worker's batches.
    """

    def __init__(self, features: Tensor, images: ImageSet, *, batch_size: int) -> None:
        self.features, self.batch_size = features, batch_size
        self.labels = torch.from_numpy(images.labels)
        self.index = torch.from_numpy(images.index)

    def batches(self, positions: NDArray[np.int64]) -> Iterator[RawBatch]:
        """See `Loader.batches`."""
        n = self.batch_size
        for start in range(0, len(positions) // n * n, n):
            own = torch.from_numpy(positions[start : start + n])
            yield RawBatch(self.features[own], self.labels[own], self.index[own])

    def close(self) -> None:
        """Nothing was opened."""


def shards_of(stage: Mapping[str, Any], folder: Path, images: ImageSet) -> Shards:
    """Of a stage that begins with an encoder's file.

    Args:
        stage: as for `train_stage`.
        folder: of the stage.
        images: its set.
    """
    return Shards(folder, images, load_artefact(Path(stage["init"])).sha256)
