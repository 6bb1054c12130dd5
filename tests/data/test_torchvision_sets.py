"""Layouts of torchvision's data sets, on stand-ins that store pixels as they do."""

import gzip
import struct
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torchvision

from rrl_dist.core.errors import UserError
from rrl_dist.data.datasets import DataSource

STL10 = DataSource(
    name="stl10",
    root="unused",
    size=96,
    classes=None,
    train_fraction=1.0,
    val_fraction=0.2,
    download=False,
    mean=[0.5] * 3,
    std=[0.5] * 3,
    memory_limit_mb=10,
    on_error="fail",
)


def pixels(count: int, seed: int, side: int) -> np.ndarray:
    shape = (count, side, side, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def fake_stl10(root, split, download):
    count = {"train": 20, "test": 6, "unlabeled": 7}[split]
    labels = np.arange(count) % 2 if split != "unlabeled" else np.full(count, -1)
    data = pixels(count, count, 96).transpose(0, 3, 1, 2)
    return SimpleNamespace(data=data, labels=labels, classes=["cat", "dog"])


def fake_cifar10(root, train, download):
    count = 20 if train else 6
    data = pixels(count, count, 32)
    return SimpleNamespace(
        data=data, targets=[i % 2 for i in range(count)], classes=["cat", "dog"]
    )


def test_stl10_pretrains_on_the_unlabelled_images_too(monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "STL10", fake_stl10)
    STL10.check()
    train, pretrain = STL10.split("train"), STL10.split("pretrain")
    more = pretrain.select(range(len(train), len(pretrain)))
    assert len(train) == 16
    np.testing.assert_array_equal(pretrain.images[:16], train.images)
    np.testing.assert_array_equal(more.images, pixels(7, 7, 96))
    np.testing.assert_array_equal(more.labels, [-1] * 7)
    np.testing.assert_array_equal(more.index, range(20, 27))
    held_out = STL10.split("val")
    assert not set(held_out.index) & set(pretrain.index)


def test_channels_first_and_last_both_arrive_as_stored(monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "STL10", fake_stl10)
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fake_cifar10)
    cifar = replace(STL10, name="cifar10", size=32)
    np.testing.assert_array_equal(STL10.split("test").images, pixels(6, 6, 96))
    np.testing.assert_array_equal(cifar.split("test").images, pixels(6, 6, 32))
    assert replace(STL10, size=24).split("test").images.shape == (6, 24, 24, 3)


def write_mnist(folder, images, labels):
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part in ("train", "t10k"):
        for kind, values in (("images-idx3", images), ("labels-idx1", labels)):
            shape = struct.pack(f">{values.ndim}i", *values.shape)
            content = struct.pack(">HBB", 0, 8, values.ndim) + shape + values.tobytes()
            (raw / f"{part}-{kind}-ubyte").write_bytes(content)
            (raw / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(content))


def test_mnist_is_read_from_its_own_files(tmp_path):
    images = pixels(20, 0, 28)[..., 0]
    write_mnist(tmp_path, images, (np.arange(20) % 10).astype(np.uint8))
    mnist = replace(STL10, name="mnist", root=str(tmp_path), size=28)
    mnist.check()
    test = mnist.split("test")
    np.testing.assert_array_equal(test.images, np.stack([images] * 3, axis=-1))
    np.testing.assert_array_equal(test.labels, np.arange(20) % 10)
    assert mnist.num_classes == 10


@pytest.mark.parametrize("kept", [0, 2, 9, 400, -1])
@pytest.mark.parametrize("kind", ["images-idx3", "labels-idx1"])
def test_a_damaged_file_is_one_line(tmp_path, kept, kind):
    images = pixels(20, 0, 28)[..., 0]
    write_mnist(tmp_path, images, (np.arange(20) % 10).astype(np.uint8))
    file = tmp_path / "MNIST" / "raw" / f"t10k-{kind}-ubyte"
    file.write_bytes(file.read_bytes()[: min(kept, file.stat().st_size - 1)])
    mnist = replace(STL10, name="mnist", root=str(tmp_path), size=28)
    with pytest.raises(UserError, match=r"mnist in .* is damaged") as caught:
        mnist.check()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "stl10", "svhn", "mnist"])
def test_a_missing_folder_is_one_line_with_both_mends(tmp_path, name):
    missing = replace(STL10, name=name, root=str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"data\.download=true, or data\.root") as e:
        missing.check()
    assert "\n" not in str(e.value)
    assert str(tmp_path / "none") in str(e.value)


def test_a_failed_download_is_one_line(monkeypatch, tmp_path):
    def no_network(root, train, download):
        raise OSError("no route to host\nand a second line")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", no_network)
    source = replace(STL10, name="cifar10", root=str(tmp_path), download=True)
    with pytest.raises(UserError, match="no route to host") as caught:
        source.check()
    assert "\n" not in str(caught.value)


def test_a_set_without_a_root_asks_for_one():
    with pytest.raises(UserError, match=r"cifar10 needs a folder; set data\.root"):
        replace(STL10, name="cifar10", root=None).check()
