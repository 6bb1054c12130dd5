"""Joining images that are encoded already; that the file is the one that FFCV's writer
makes is shown with FFCV itself, in tests/training/test_encoding.py."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrl_dist.core.errors import UserError
from rrl_dist.data.beton import check_beton
from rrl_dist.data.datasets import ImageSet
from rrl_dist.data.folder import FolderImages
from rrl_dist.data.shards import shards_of, write_encoded


def listed(count: int, size: int = 16) -> ImageSet:
    """A set whose files are never opened."""
    names, lengths = tuple(f"{i}.jpg" for i in range(count)), tuple(range(count))
    images = FolderImages(Path("nowhere"), names, lengths, size)
    return ImageSet("x-train", images, np.arange(count) % 3, np.arange(count), ("a",))


def nothing(done: int, total: int) -> None:
    """Nobody follows."""


@given(st.integers(0, 1500), st.sampled_from([16, 500, 2000, 4000]))
def test_shards_are_all_images_in_their_order(count: int, size: int) -> None:
    images = listed(count, size).images
    assert isinstance(images, FolderImages)
    shards = list(shards_of(images))
    assert sum((shard.files for shard in shards), ()) == images.files
    assert sum((shard.lengths for shard in shards), ()) == images.lengths
    assert all(len(shard) for shard in shards)


def test_a_joined_file_is_whole_and_tells_how_far_it_is(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    images = listed(9)
    write_encoded(
        images,
        tmp_path / "x.beton",
        [[b"one"] * 4, [], [b"two"] * 5],
        progress=lambda *place: told.append(place),
    )
    check_beton(tmp_path / "x.beton", images)
    with pytest.raises(UserError, match="holds other samples"):
        check_beton(tmp_path / "x.beton", images.select(np.arange(9)[::-1]))
    assert told == sorted(told)
    assert told[-1] == (18, 18)


@pytest.mark.parametrize("count", [8, 10])
def test_a_file_of_too_few_or_too_many_images_is_not_left(
    tmp_path: Path, count: int
) -> None:
    shards = [[b"image"] for _ in range(count)]
    with pytest.raises(RuntimeError, match="were encoded"):
        write_encoded(listed(9), tmp_path / "x.beton", shards, progress=nothing)
    assert not list(tmp_path.iterdir())
