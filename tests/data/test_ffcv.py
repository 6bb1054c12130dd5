"""FFCV itself: each test compiles, or reads what the module's fixture wrote."""

import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rrl_dist.core.errors import UserError
from rrl_dist.data import ffcv_loader
from rrl_dist.data.beton import beton_path, check_beton, write_beton
from rrl_dist.data.datasets import ImageSet
from rrl_dist.data.folder import FolderImages
from rrl_dist.data.loader import open_loader
from rrl_dist.data.order import worker_positions
from tests.data.reading import global_batches

pytestmark = pytest.mark.slow

COUNT, SIDE, BATCH = 701, 12, 16
ORDER = np.random.default_rng(1).permutation(COUNT)


def made(smooth: bool = False) -> ImageSet:
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (COUNT, SIDE, SIDE, 3), dtype=np.uint8)
    if smooth:
        images[:] = images[:, :1, :1]
    labels = generator.integers(-1, 3, COUNT)
    index = generator.permutation(5000)[:COUNT].astype(np.int64)
    return ImageSet("made-train", images, labels, index, ("a", "b", "c"))


def write(images: ImageSet, path: Path, mode: str = "raw", quality: int = 90) -> None:
    write_beton(
        images,
        path,
        mode=mode,
        quality=quality,
        workers=2,
        progress=lambda done, total: None,
    )


@pytest.fixture(scope="module", autouse=True)
def _ffcv() -> None:
    """Imported here, not above: collecting the fast tests must not pay for it."""
    try:
        ffcv_loader.import_ffcv()
    except (ImportError, OSError) as error:
        pytest.skip(f"FFCV cannot be imported: {error}")


@pytest.fixture(scope="module")
def beton(tmp_path_factory) -> Path:
    path = beton_path(tmp_path_factory.mktemp("betons"), made(), "raw")
    write(made(), path)
    return path


@pytest.fixture
def loader(beton):
    opened = open_loader(
        kind="auto",
        images=made(),
        beton=beton,
        batch_size=BATCH,
        workers=2,
        notify=pytest.fail,
    )
    yield opened
    opened.close()


@pytest.fixture
def memory():
    return open_loader(
        kind="memory",
        images=made(),
        beton=None,
        batch_size=BATCH,
        workers=0,
        notify=pytest.fail,
    )


def assert_same(first, second, positions):
    pairs = zip(first.batches(positions), second.batches(positions), strict=True)
    count = 0
    for a, b in pairs:
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.labels, b.labels)
        assert torch.equal(a.index, b.index)
        assert a.images.is_contiguous()
        count += 1
    assert count == len(positions) // BATCH


def test_batches_equal_the_memory_loaders(loader, memory):
    two_epochs = [ORDER, np.random.default_rng(2).permutation(COUNT)]
    middle, short = ORDER[5 * BATCH :], ORDER[: BATCH - 1]
    for positions in (*two_epochs, middle, short, ORDER[::-1]):
        assert_same(loader, memory, positions)


def test_three_workers_go_on_where_any_number_has_stopped(loader):
    """In the middle of an epoch; each has its own reader, here one after another."""
    batch_size, start = 3 * BATCH, 5

    def load(share):
        assert share == BATCH
        return loader

    sizes = {"count": COUNT, "batch_size": batch_size}
    found = global_batches(load, [(3, COUNT)], start=start, **sizes)
    alone = worker_positions(seed=0, epoch=0, rank=0, workers=1, start=start, **sizes)
    assert found == made().index[alone].reshape(-1, batch_size).tolist()
    assert len(found) == COUNT // batch_size - start


def test_after_an_early_break_nothing_is_left_running(loader, memory):
    list(loader.batches(ORDER[:BATCH]))
    threads = threading.active_count()
    for _ in range(5):
        iterator = loader.batches(ORDER)
        next(iterator)
        iterator.close()
        assert threading.active_count() == threads
    assert_same(loader, memory, ORDER)


def test_batches_stay_as_they_were_given(loader, memory):
    kept = list(loader.batches(ORDER))
    for mine, wanted in zip(kept, memory.batches(ORDER), strict=True):
        assert torch.equal(mine.images, wanted.images)


def test_a_second_loader_is_refused_until_the_first_is_closed(loader, beton):
    with pytest.raises(RuntimeError, match="another FFCV loader"):
        ffcv_loader.FfcvLoader(beton, batch_size=2, threads=1)
    loader.close()
    ffcv_loader.FfcvLoader(beton, batch_size=2, threads=1).close()
    with pytest.raises(RuntimeError, match="closed"):
        next(loader.batches(ORDER))


def test_positions_outside_the_file_are_refused(loader):
    for wrong in (-1, COUNT):
        with pytest.raises(IndexError, match=f"{COUNT} samples"):
            next(loader.batches(np.full(BATCH, wrong)))


@pytest.mark.parametrize("threads", [1, 2])
def test_torchs_thread_count_is_left_alone(beton, threads):
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    other = 3 - threads
    try:
        ffcv_loader.import_ffcv()
        assert torch.get_num_threads() == threads
        opened = ffcv_loader.FfcvLoader(beton, batch_size=BATCH, threads=other)
        assert torch.get_num_threads() == threads
        for _ in opened.batches(ORDER):
            assert torch.get_num_threads() == threads
        seen: list[int] = []
        fresh = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        fresh.start()
        fresh.join()
        assert seen == [threads]
        opened.close()
    finally:
        torch.set_num_threads(before)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_error_in_ffcvs_thread_is_raised_and_does_not_hang(loader):
    def fail(**arguments):
        raise ValueError("from within")

    loader._loader.code = ([(fail, [])], [])
    with pytest.raises(RuntimeError, match="has failed"):
        next(loader.batches(ORDER))


def test_a_first_batch_that_never_comes_is_an_error(loader, monkeypatch):
    monkeypatch.setattr(ffcv_loader, "_FIRST_BATCH_SECONDS", 0.2)
    monkeypatch.setattr(ffcv_loader, "_STOP_SECONDS", 0.2)
    release = threading.Event()
    loader._loader.code = ([(lambda **arguments: release.wait(20) and (), [])], [])
    with pytest.raises(RuntimeError, match="no first batch"):
        next(loader.batches(ORDER))
    release.set()


def test_equal_sets_give_equal_bytes(beton, tmp_path):
    write(made(), tmp_path / "again.beton")
    assert (tmp_path / "again.beton").read_bytes() == beton.read_bytes()


def test_progress_counts_each_image_twice_and_never_falls(tmp_path):
    told: list[tuple[int, int]] = []
    write_beton(
        made(),
        tmp_path / "x.beton",
        mode="raw",
        quality=90,
        workers=1,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == sorted(told)
    assert told[-1] == (2 * COUNT, 2 * COUNT)


def test_a_cut_or_foreign_file_is_refused_by_name(beton, tmp_path):
    whole = beton.read_bytes()
    for length in (10, 4000, len(whole) // 2, len(whole) - 1):
        cut = tmp_path / "cut.beton"
        cut.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"cut\.beton is cut short"):
            check_beton(cut, made())
    check_beton(beton, made())
    swapped = made().select([1, 0, *range(2, COUNT)])
    with pytest.raises(UserError, match="holds other samples"):
        check_beton(beton, swapped)
    with pytest.raises(UserError, match="701 images where made-train has 5"):
        check_beton(beton, made().select(range(5)))
    larger = replace(made(), images=np.zeros((COUNT, 14, 14, 3), np.uint8))
    with pytest.raises(UserError, match=r"12 px where data\.size=14"):
        check_beton(beton, larger)


def test_auto_refuses_a_damaged_file(tmp_path):
    (tmp_path / "bad.beton").write_bytes(b"spoilt")
    with pytest.raises(UserError, match=r"bad\.beton is cut short"):
        open_loader(
            kind="auto",
            images=made(),
            beton=tmp_path / "bad.beton",
            batch_size=BATCH,
            workers=1,
            notify=pytest.fail,
        )


def test_jpeg_keeps_labels_and_nearly_the_pixels(tmp_path):
    smooth = made(smooth=True)
    write(smooth, tmp_path / "x.beton", mode="jpg")
    opened = ffcv_loader.FfcvLoader(tmp_path / "x.beton", batch_size=BATCH, threads=1)
    for step, batch in enumerate(opened.batches(np.arange(COUNT))):
        part = smooth.select(range(step * BATCH, (step + 1) * BATCH))
        assert batch.labels.tolist() == part.labels.tolist()
        error = batch.images.permute(0, 2, 3, 1).numpy() - part.images.astype(float)
        assert np.abs(error).mean() < 3
    opened.close()


def test_a_file_that_does_not_give_back_what_was_written_is_not_left(tmp_path):
    with pytest.raises(RuntimeError, match="not read back as written") as caught:
        write(made(), tmp_path / "x.beton", mode="jpg", quality=5)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def lazy(folder: Path) -> ImageSet:
    held = made().select(range(50))
    files = tuple(f"{i}.png" for i in range(50))
    for name, image in zip(files, held.images, strict=True):
        Image.fromarray(image).save(folder / name)
    images = FolderImages(folder, files, (0,) * 50, SIDE)
    return replace(held, images=images)


def test_a_folder_is_written_as_it_is_decoded(tmp_path):
    images = lazy(tmp_path)
    write(images, tmp_path / "x.beton")
    check_beton(tmp_path / "x.beton", images)


def test_a_corrupt_image_stops_the_writing_at_once_and_is_named(tmp_path):
    images = lazy(tmp_path)
    (tmp_path / "17.png").write_bytes(b"spoilt")
    start = time.monotonic()
    with pytest.raises(UserError, match=r"17\.png") as caught:
        write(images, tmp_path / "out" / "x.beton")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []
    assert time.monotonic() - start < 60


def test_writing_leaves_the_callers_process_without_ffcv(tmp_path):
    import subprocess
    import sys

    script = (
        "import sys, numpy as np\n"
        "from pathlib import Path\n"
        "from rrl_dist.data.beton import write_beton\n"
        "from rrl_dist.data.datasets import ImageSet\n"
        "x = np.zeros((3, 4, 4, 3), np.uint8)\n"
        "s = ImageSet('s-train', x, np.zeros(3, int), np.arange(3), ('a',))\n"
        "write_beton(s, Path(sys.argv[1]), mode='raw', quality=90, workers=1,\n"
        "            progress=lambda done, total: None)\n"
        "assert not {'ffcv', 'numba'} & set(sys.modules)\n"
    )
    # As a bare -c script, which a spawned interpreter could not import again.
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "x.beton"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == done.stderr == ""
