import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rrl_dist.core.errors import UserError
from rrl_dist.data.datasets import DataSource
from rrl_dist.data.folder import FolderImages, read_image

SIZE = 8


def source(root: Path, **changes: object) -> DataSource:
    base = DataSource(
        name="imagefolder",
        root=str(root),
        size=SIZE,
        classes=None,
        train_fraction=1.0,
        val_fraction=0.25,
        download=False,
        mean=[0.5] * 3,
        std=[0.5] * 3,
        memory_limit_mb=10,
        on_error="fail",
    )
    return replace(base, **changes)


def picture(seed: int, high: int = SIZE, wide: int = SIZE) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (high, wide, 3))
    return Image.fromarray(values.astype(np.uint8))


def fill(folder: Path, classes: str, count: int) -> None:
    for place, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            picture(100 * place + i).save(folder / name / f"{i:02}.png")


@pytest.fixture
def root(tmp_path):
    fill(tmp_path / "train", "ab", 8)
    fill(tmp_path / "test", "ab", 3)
    return tmp_path


def test_pixels_labels_and_classes_come_from_the_files(root):
    data = source(root)
    data.check()
    test = data.split("test")
    assert test.classes == ("a", "b")
    np.testing.assert_array_equal(test.labels, [0, 0, 0, 1, 1, 1])
    wanted = [np.array(picture(seed)) for seed in (0, 1, 2, 100, 101, 102)]
    np.testing.assert_array_equal(test.images, wanted)


def test_on_demand_and_in_memory_give_the_same_pixels_and_samples(root):
    for split in ("train", "val", "test"):
        held = source(root).split(split)
        lazy = source(root, memory_limit_mb=0).split(split)
        assert isinstance(held.images, np.ndarray)
        assert isinstance(lazy.images, FolderImages)
        np.testing.assert_array_equal(list(lazy.images), held.images)
        np.testing.assert_array_equal(lazy.index, held.index)
        np.testing.assert_array_equal(lazy.labels, held.labels)


def test_fingerprint_on_demand_ignores_times_and_sees_lengths(root):
    first = source(root, memory_limit_mb=0).split("test").fingerprint
    file = root / "test" / "a" / "00.png"
    os.utime(file, (1, 1))
    assert source(root, memory_limit_mb=0).split("test").fingerprint == first
    file.write_bytes(file.read_bytes() + b"\0")
    assert source(root, memory_limit_mb=0).split("test").fingerprint != first


def test_without_a_train_folder_a_fifth_of_each_class_is_the_test(tmp_path):
    fill(tmp_path, "abc", 10)
    data = source(tmp_path, val_fraction=0.25)
    parts = [data.split(name) for name in ("train", "val", "test")]
    assert [np.bincount(part.labels).tolist() for part in parts] == [
        [6] * 3,
        [2] * 3,
        [2] * 3,
    ]
    index = np.concatenate([part.index for part in parts])
    np.testing.assert_array_equal(np.sort(index), np.arange(30))


def test_val_serves_where_there_is_no_test_folder(root):
    before = source(root).split("test")
    (root / "test").rename(root / "val")
    np.testing.assert_array_equal(source(root).split("test").images, before.images)


def test_short_side_is_resized_and_the_centre_cut(tmp_path):
    tall = Image.new("RGB", (SIZE * 2, SIZE * 6), "black")
    tall.paste("white", (0, SIZE * 2, SIZE * 2, SIZE * 4))
    tall.save(tmp_path / "tall.png")
    assert read_image(tmp_path / "tall.png", size=SIZE)[1:-1].min() == 255
    picture(0, high=40, wide=9).convert("L").save(tmp_path / "thin.png")
    assert read_image(tmp_path / "thin.png", size=SIZE).shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize("limit", [0, 10])
def test_a_corrupt_image_is_named(root, limit):
    bad = root / "test" / "b" / "01.png"
    bad.write_bytes(bad.read_bytes()[:60])
    with pytest.raises(UserError, match=r"test/b/01\.png") as caught:
        list(source(root, memory_limit_mb=limit).split("test").images)
    assert "data.on_error=skip" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("limit", [0, 10])
def test_a_corrupt_image_can_be_skipped_with_a_count(root, limit, caplog):
    bad = root / "test" / "b" / "01.png"
    bad.write_bytes(b"not an image")
    with caplog.at_level(logging.WARNING):
        found = source(root, memory_limit_mb=limit, on_error="skip").split("test")
    np.testing.assert_array_equal(found.index, [0, 1, 2, 3, 5])
    assert len(list(found.images)) == 5
    assert "skipped 1 of 6 images" in caplog.text
    assert "01.png" in caplog.text


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "test" / "b").rename(root / "test" / "c"), "'b'"),
        (lambda root: (root / "test").rename(root / "tset"), "neither test nor val"),
    ],
)
def test_train_and_test_must_agree(root, spoil, message):
    spoil(root)
    with pytest.raises(UserError, match=message):
        source(root).check()


def test_missing_and_empty_folders_are_named(tmp_path):
    with pytest.raises(UserError, match=r"no folder .*nowhere; set data\.root"):
        source(tmp_path / "nowhere").check()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no CLASS/\*\.jpg in .*empty"):
        source(tmp_path / "empty").check()


def test_a_class_of_one_image_stays_in_training(tmp_path):
    fill(tmp_path, "a", 10)
    fill(tmp_path, "b", 1)
    data = source(tmp_path)
    assert np.bincount(data.split("train").labels).tolist() == [6, 1]
    assert set(data.split("test").labels) == {0}


def shaded(mode: str) -> Image.Image:
    """Four columns of grey from dark to light, in another kind of picture."""
    grey = np.tile(np.array([0, 80, 160, 255], dtype=np.uint8), (4, 1))
    image = Image.fromarray(grey)
    if mode == "I;16":
        return Image.fromarray(grey.astype(np.uint16) * 257)
    if mode == "P":
        image = image.convert("P")
        image.info["transparency"] = bytes([0, *[255] * 255])
        return image
    return image.convert(mode)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [
        ("L", "png"),
        ("LA", "png"),
        ("RGBA", "png"),
        ("P", "png"),
        ("CMYK", "tif"),
        ("I;16", "png"),
        ("I;16", "tif"),
        ("I;16", "pgm"),
    ],
)
def test_every_kind_of_picture_keeps_its_greys(tmp_path, mode, suffix):
    path = tmp_path / f"x.{suffix}"
    shaded(mode).save(path)
    grey = np.array([0, 80, 160, 255])
    wanted = np.broadcast_to(grey[None, :, None], (4, 4, 3))
    np.testing.assert_array_equal(read_image(path, size=4), wanted)


def test_of_a_moving_picture_the_first_is_taken(tmp_path):
    frames = [Image.new("RGB", (4, 4), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:])
    assert (read_image(tmp_path / "x.gif", size=4) == [255, 0, 0]).all()


@pytest.mark.parametrize("limit", [0, 10])
def test_names_may_be_in_any_script(tmp_path, limit):
    for name in ("größe", "картина", "日本"):
        (tmp_path / name).mkdir()
        for i in range(10):
            picture(i).save(tmp_path / name / f"写真 {i}.png")
    data = source(tmp_path, memory_limit_mb=limit)
    data.check()
    assert data.class_names == ("größe", "картина", "日本")
    assert len(list(data.split("train").images)) == 18


@pytest.mark.parametrize("limit", [0, 10])
@pytest.mark.parametrize("kind", ["link", "folder", "none"])
def test_what_is_no_file_of_an_image_is_named_before_training(root, limit, kind):
    bad = root / "train" / "a" / "01.png"
    bad.unlink()
    if kind == "link":
        bad.symlink_to(root / "nowhere.png")
    elif kind == "folder":
        bad.mkdir()
    else:
        bad.touch()
    with pytest.raises(UserError, match=r"train/a/01\.png") as caught:
        source(root, memory_limit_mb=limit).check()
    assert "\n" not in str(caught.value)
    skipping = source(root, memory_limit_mb=limit, on_error="skip")
    skipping.check()
    assert len(list(skipping.split("train").images)) == 11
