"""Images of a folder decoded and encoded by Ray tasks, wherever a cluster has room."""

import platform
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rrl_dist.core.errors import UserError
from rrl_dist.data.folder import FolderImages
from rrl_dist.data.shards import Encoder, shards_of
from rrl_dist.training.cluster import check_cpus

# For each CPU, so that none waits for the one that writes.
_AHEAD = 2


def encoder_on(start: Callable[[], Mapping[str, Any]]) -> Encoder:
    """What encodes images by tasks of one CPU each.

    Args:
        start: starts the cluster, or returns the one that is there, see `session`.
    """

    def encode(images: FolderImages, quality: int) -> Iterator[list[bytes]]:
        import ray

        cluster = start()
        check_cpus(cluster)
        ahead = _AHEAD * int(cluster["cpus"])
        task = ray.remote(encode_shard).options(
            num_cpus=1, scheduling_strategy="SPREAD"
        )
        waiting: deque[Any] = deque()
        for shard in shards_of(images):
            waiting.append(task.remote(shard, quality))
            if len(waiting) > ahead:
                yield _answer(waiting.popleft())
        while waiting:
            yield _answer(waiting.popleft())

    return encode


def encode_shard(images: FolderImages, quality: int) -> list[bytes]:
    """Runs as a task, on a node that must have the same files as the driver.

    Raises:
        UserError: it has not, or an image cannot be read.
        ValueError: an image is not what was encoded.
    """
    from rrl_dist.data.ffcv_writer import encode_images

    try:
        _check_files(images)
        return encode_images(images, quality=quality)
    except UserError as error:
        raise UserError(f"node {platform.node()}: {error}") from None
    except ImportError as error:
        raise UserError(
            f"node {platform.node()}: FFCV cannot be imported there ({error}); install "
            "it as on the driver's node, or set cluster=debug"
        ) from None


def _check_files(images: FolderImages) -> None:
    for name, length in zip(images.files, images.lengths, strict=True):
        file = images.root / name
        if not file.is_file():
            raise UserError(
                f"no file {file}; set data.root to a folder that all nodes share"
            )
        if file.stat().st_size != length:
            raise UserError(
                f"{file} is another file than on the driver's node; set data.root to a "
                "folder that all nodes share"
            )


def _answer(reference: Any) -> list[bytes]:
    """Of a task.

    Raises:
        UserError: the user's mistake, as it was raised there, or nodes that ran it were
            lost more often than Ray runs it again.
        RuntimeError: it failed.
    """
    import ray

    try:
        return list(ray.get(reference))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        raise RuntimeError(f"images could not be encoded: {error.cause}") from None
    except ray.exceptions.RayError as error:
        told = f"{error}".strip().partition("\n")[0] or type(error).__name__
        raise UserError(
            f"images could not be encoded: their nodes were lost ({told}); see to them "
            "and give the same command again, or set cluster=debug"
        ) from None
