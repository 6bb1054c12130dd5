import importlib.util
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rrl_dist.core.errors import UserError
from rrl_dist.data.beton import beton_path, check_beton, write_beton
from rrl_dist.data.datasets import ImageSet
from rrl_dist.data.folder import FolderImages
from rrl_dist.data.loader import open_loader
from tests.data.reading import global_batches

COUNT, SIDE = 23, 6


def stored() -> ImageSet:
    generator = np.random.default_rng(0)
    return ImageSet(
        "made-train",
        generator.integers(0, 256, (COUNT, SIDE, SIDE, 3), dtype=np.uint8),
        generator.integers(0, 3, COUNT),
        generator.permutation(100)[:COUNT].astype(np.int64),
        ("a", "b", "c"),
    )


def in_folder(folder: Path) -> ImageSet:
    """The same set as PNG files, decoded on demand."""
    held = stored()
    files = tuple(f"{i}.png" for i in range(COUNT))
    for name, image in zip(files, held.images, strict=True):
        Image.fromarray(image).save(folder / name)
    lengths = tuple((folder / name).stat().st_size for name in files)
    return replace(held, images=FolderImages(folder, files, lengths, SIDE))


def opened(images: ImageSet, workers: int = 0, batch_size: int = 4):
    return open_loader(
        kind="memory",
        images=images,
        beton=None,
        batch_size=batch_size,
        workers=workers,
        notify=pytest.fail,
    )


def assert_visits(loader, positions, batch_size=4):
    held, steps = stored(), len(positions) // batch_size
    batches = list(loader.batches(positions))
    assert len(batches) == steps
    for step, batch in enumerate(batches):
        part = positions[step * batch_size : (step + 1) * batch_size]
        wanted = torch.from_numpy(held.images[part]).permute(0, 3, 1, 2)
        assert torch.equal(batch.images, wanted)
        assert batch.images.is_contiguous()
        assert batch.labels.tolist() == held.labels[part].tolist()
        assert batch.index.tolist() == held.index[part].tolist()
        assert batch.labels.dtype == batch.index.dtype == torch.int64


ORDER = np.random.default_rng(1).permutation(COUNT)


@pytest.mark.slow
def test_processes_that_decode_do_not_hear_ctrl_c(tmp_path):
    """A terminal sends it to them too; who ends them is the process that trains."""
    others = multiprocessing.active_children()  # such as the pool of gloo's tests
    loader = opened(in_folder(tmp_path), workers=1)
    batches = loader.batches(np.arange(COUNT))
    next(batches)
    decoding = set(multiprocessing.active_children()) - set(others)
    assert decoding
    for process in decoding:
        os.kill(process.pid, signal.SIGINT)
    assert len(list(batches)) == COUNT // 4 - 1
    loader.close()


@pytest.mark.parametrize("lazy", [False, True])
def test_exactly_the_positions_are_visited_in_order(tmp_path, lazy):
    loader = opened(in_folder(tmp_path) if lazy else stored())
    for positions in (ORDER, ORDER[8:], ORDER[::-1], ORDER[:3], ORDER[[5, 5, 5, 5]]):
        assert_visits(loader, positions)


@pytest.mark.parametrize("last", [1, 2, 3, 4])
def test_workers_that_change_in_mid_epoch_read_on(last):
    count, batch_size = 77, 12
    pixels = np.zeros((count, 2, 2, 3), np.uint8)
    places = np.arange(count)
    images = ImageSet("many", pixels, places % 3, places + 5, ("a", "b", "c"))

    def load(share):
        return opened(images, batch_size=share)

    alone = global_batches(load, [(1, 6)], count=count, batch_size=batch_size)
    shares = [(4, 1), (1, 1), (3, 2), (last, 2)]
    assert global_batches(load, shares, count=count, batch_size=batch_size) == alone
    index = [i for batch in alone for i in batch]
    assert len(set(index)) == len(index) == count // batch_size * batch_size
    assert set(index) <= set(images.index.tolist())


def test_dropped_early_it_starts_afresh(tmp_path):
    loader = opened(in_folder(tmp_path))
    iterator = loader.batches(ORDER)
    next(iterator)
    iterator.close()
    assert_visits(loader, ORDER[::-1])


def test_batches_are_the_receivers_to_keep():
    images = stored()
    loader = opened(images)
    batch = next(loader.batches(ORDER))
    batch.images.zero_()
    np.testing.assert_array_equal(images.images, stored().images)


def test_reading_leaves_torchs_global_generator_alone(tmp_path):
    loader = opened(in_folder(tmp_path))
    before = torch.random.get_rng_state()
    list(loader.batches(ORDER))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.slow
def test_processes_decode_the_same_and_name_a_corrupt_image(tmp_path):
    loader = opened(in_folder(tmp_path), workers=2)
    assert_visits(loader, ORDER)
    iterator = loader.batches(ORDER)
    next(iterator)
    iterator.close()
    assert_visits(loader, ORDER[::-1])
    (tmp_path / f"{ORDER[0]}.png").write_bytes(b"spoilt")
    with pytest.raises(UserError, match=rf"/{ORDER[0]}\.png") as caught:
        list(loader.batches(ORDER))
    assert "\n" not in str(caught.value)
    loader.close()


def test_a_corrupt_image_is_one_line(tmp_path):
    images = in_folder(tmp_path)
    (tmp_path / "3.png").write_bytes(b"spoilt")
    with pytest.raises(UserError, match=r"3\.png"):
        list(opened(images).batches(np.arange(COUNT)))


def test_auto_without_a_beton_says_so_in_one_line(tmp_path):
    lines: list[str] = []
    loader = open_loader(
        kind="auto",
        images=stored(),
        beton=tmp_path / "none.beton",
        batch_size=4,
        workers=0,
        notify=lines.append,
    )
    assert_visits(loader, ORDER)
    assert len(lines) == 1
    assert "\n" not in lines[0]
    installed = importlib.util.find_spec("ffcv") is not None
    assert ("rrl prepare" if installed else "libopencv-dev") in lines[0]


def test_without_ffcv_its_system_packages_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr("rrl_dist.data.loader.find_spec", lambda name: None)
    arguments = {"images": stored(), "beton": None, "batch_size": 4, "workers": 0}
    lines: list[str] = []
    open_loader(kind="auto", notify=lines.append, **arguments)
    assert "libopencv-dev libturbojpeg0-dev pkg-config g++" in lines[0]
    with pytest.raises(UserError, match="libopencv-dev"):
        open_loader(kind="ffcv", notify=lines.append, **arguments)
    with pytest.raises(UserError, match="choose one of auto, ffcv, memory"):
        open_loader(kind="fast", notify=lines.append, **arguments)


def test_file_names_tell_the_set_the_mode_and_the_content(tmp_path):
    images = stored()
    path = beton_path(tmp_path, images, "raw")
    assert path.parent == tmp_path
    assert path.name.startswith("made-train-raw-")
    others = [images.select(range(5)), replace(images, name="made-val")]
    names = {beton_path(tmp_path, other, "raw") for other in others}
    names |= {path, beton_path(tmp_path, images, "jpg")}
    assert len(names) == 4


@pytest.mark.parametrize("content", [b"", b"short", os.urandom(5000), b"\0" * 5000])
def test_a_file_that_is_no_beton_is_refused_by_name(tmp_path, content):
    path = tmp_path / "foreign.beton"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"foreign\.beton .*rrl prepare"):
        check_beton(path, stored())
    with pytest.raises(UserError, match=r"no file .*missing\.beton"):
        check_beton(tmp_path / "missing.beton", stored())


def test_an_unknown_mode_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(UserError, match="choose one of raw, jpg"):
        write_beton(
            stored(),
            tmp_path / "x.beton",
            mode="png",
            quality=90,
            workers=1,
            progress=lambda done, total: None,
        )
    assert list(tmp_path.iterdir()) == []
