"""Images that cannot be: said in one line before anything is trained."""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.harness import rrl
from tests.mistakes.commands import refused
from tests.mistakes.listing import told

SHAPE = (16, 16, 3)
# No stage is reached: each of these ends while the images are looked at.
FOLDER = ("experiment=demo", "data=imagefolder", "data.size=16", "loader=memory")
SHOWN = "rrl run experiment=demo data=imagefolder data.root=FOLDER/photos"
EACH = {"train": 40, "test": 35}


def pixels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, SHAPE, dtype=np.uint8)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of two classes, all well with it."""
    seed = 0
    for split, each in EACH.items():
        for name in ("a", "b"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for i in range(each):
                Image.fromarray(pixels(seed)).save(folder / f"{i:02d}.png")
                seed += 1
    return tmp_path / "photos"


def empty(photos: Path) -> None:
    for file in photos.rglob("*.png"):
        file.unlink()


def flat(photos: Path) -> None:
    """The images of all classes in one folder."""
    for file in photos.glob("*/*/*.png"):
        file.rename(
            photos / f"{file.parent.parent.name}-{file.parent.name}-{file.name}"
        )
    for folder in sorted(photos.rglob("*"), reverse=True):
        if folder.is_dir():
            folder.rmdir()


def spoiled(content: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def spoil(photos: Path) -> None:
        file = photos / "train/a/07.png"
        file.write_bytes(content(file.read_bytes()))

    return spoil


def turned_into_a_folder(photos: Path) -> None:
    file = photos / "train/a/07.png"
    file.unlink()
    file.mkdir()


def broken_link(photos: Path) -> None:
    file = photos / "train/a/07.png"
    file.unlink()
    file.symlink_to(photos / "nowhere.png")


def floating(photos: Path) -> None:
    image = Image.fromarray(np.full((16, 16), 0.5, dtype=np.float32))
    image.save(photos / "train/a/07.tif")


def not_utf8(photos: Path) -> None:
    for split in EACH:
        (photos / split / "b").rename(photos / split / "caf\udce9")


def without_test(photos: Path) -> None:
    (photos / "test").rename(photos / "tset")


def another_class(photos: Path) -> None:
    (photos / "test/b").rename(photos / "test/c")


def one_of_each(photos: Path) -> None:
    for file in photos.glob("train/*/*.png"):
        if file.name != "00.png":
            file.unlink()


MISTAKES = [
    ("a missing data folder", lambda photos: photos.rename(photos.parent / "x")),
    ("a folder without images", empty),
    ("images without class folders", flat),
    ("a train folder without a test folder", without_test),
    ("a class that is in train alone", another_class),
    ("a class folder's name that is not UTF-8", not_utf8),
    ("one image a class", one_of_each),
    ("an image file that is a text", spoiled(lambda content: b"not an image")),
    ("an image file of no bytes", spoiled(lambda content: b"")),
    ("an image file cut short", spoiled(lambda content: content[:200])),
    ("a folder named as an image", turned_into_a_folder),
    ("a link to an image that is gone", broken_link),
    ("an image of floating-point pixels", floating),
]


ONLY_DECODING_TELLS = {
    "an image file cut short",
    "an image of floating-point pixels",
}


@pytest.mark.parametrize(("case", "spoil"), MISTAKES, ids=[c for c, _ in MISTAKES])
def test_of_a_folder_of_images(
    case: str,
    spoil: Callable[[Path], None],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(photos)
    command = ["run", *FOLDER, f"data.root={photos}", f"storage={tmp_path / 'runs'}"]
    line = refused(command, monkeypatch, capsys)
    told(case, SHOWN, line, folder=tmp_path)
    # Decoded on demand, they are not decoded before, but looked at.
    if case not in ONLY_DECODING_TELLS:
        assert (
            refused([*command, "data.memory_limit_mb=0"], monkeypatch, capsys) == line
        )


WORKERS = ["cluster=local", "cluster.workers=3", "loader=memory"]


@pytest.mark.parametrize(
    ("case", "arguments"),
    [
        (
            "a batch that does not split over the workers",
            ["run", "experiment=demo", "arms.deacl.train.batch_size=100"],
        ),
        (
            "a head's batch that does not split over the workers",
            ["run", "experiment=demo", "protocol.train.batch_size=100"],
        ),
        (
            "a batch that does not split over the workers of a stage",
            ["pretrain", "name=x", "data=digits", "train.batch_size=100"],
        ),
        (
            "a batch of more images than there are",
            ["pretrain", "name=x", "data=digits", "train.batch_size=3000"],
        ),
    ],
    ids=["an arm", "the head", "pretrain", "too large"],
)
def test_of_a_batch(
    case: str,
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fits = [f"{where}.train.batch_size=120" for where in ("arms.simclr", "arms.deacl")]
    command = [arguments[0]]
    command += [*fits, "protocol.train.batch_size=120"] if "run" in arguments else []
    command += [*arguments[1:], *WORKERS, f"storage={tmp_path}"]
    line = refused(command, monkeypatch, capsys)
    told(case, f"rrl {' '.join(arguments)} cluster.workers=3", line)


PRETRAIN = (
    "pretrain",
    "name=x",
    "model=tiny_cnn",
    "model.backbone.width=2",
    "objective.projector.hidden=8",
    "objective.projector.out=4",
    "views=digits",
    "probe=none",
    "cluster=debug",
    "train.batch_size=32",
    "train.max_steps=2",
)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [0, 100])
def test_unreadable_images_can_be_left_out(photos: Path, limit: int) -> None:
    for name in ("03", "07"):
        file = photos / f"train/a/{name}.png"
        file.write_bytes(file.read_bytes()[:100])
    printed = rrl(
        photos.parent,
        *PRETRAIN,
        "data=imagefolder",
        "data.size=16",
        f"data.root={photos}",
        "data.on_error=skip",
        f"data.memory_limit_mb={limit}",
        "loader=memory",
    )
    lines = [line.strip() for line in printed.splitlines()]
    (line,) = [line for line in lines if line.startswith("skipped 2 of 72")]
    told(
        "images that cannot be read, with data.on_error=skip",
        SHOWN + " data.on_error=skip",
        line,
        folder=photos.parent,
    )
    assert "70 pretrain" in printed


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1000])


def foreign(file: Path) -> None:
    file.write_bytes(b"PK\x03\x04" + bytes(100_000))


@pytest.mark.slow
@pytest.mark.skipif(find_spec("ffcv") is None, reason="FFCV is not installed")
def test_a_spoiled_beton_is_named_and_written_again(tmp_path: Path) -> None:
    command = (*PRETRAIN, "data=digits")
    rrl(tmp_path, *command, "loader=ffcv")
    (file,) = (tmp_path / "betons").glob("digits-pretrain-*.beton")
    whole = file.read_bytes()
    for case, spoil, loader in (
        ("a .beton file cut short", cut, "ffcv"),
        ("a file of something else in the place of a .beton file", foreign, "auto"),
    ):
        spoil(file)
        printed = rrl(tmp_path, *command, f"loader={loader}")
        lines = [line.strip() for line in printed.splitlines()]
        (line,) = [line for line in lines if line.endswith("writing it again")]
        line = line.replace(file.name, "digits-pretrain-raw-HASH.beton")
        shown = f"rrl pretrain data=digits loader={loader}"
        told(case, shown, line, folder=tmp_path)
        assert file.read_bytes() == whole
