"""Corrupted images from published files, written here in their layouts."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from rrl_dist.attacks.balls import Linf
from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import read_json
from rrl_dist.data.datasets import DataSource
from rrl_dist.data.folder import read_image
from rrl_dist.data.published import Published, names_below
from rrl_dist.evaluate.calls import evaluate
from rrl_dist.evaluate.corruption import corruptions_of
from rrl_dist.evaluate.corruption_files import (
    check_files,
    corruption_identity,
    files_of,
)
from rrl_dist.evaluate.images import chosen_images
from rrl_dist.evaluate.pool import _check_files
from rrl_dist.evaluate.surrogates import suite_identity
from rrl_dist.training.build import build, load_classifier
from tests.evaluate.jobs import LIMIT, Job, chosen, job_of, of_suite, rows_in, run

KINDS = ["fog", "snow"]
SIDE = 8  # of the digits that tests attack
SUITE: dict[str, Any] = {"kinds": KINDS, "severities": [1, 5]}


def array_set(folder: Path, labels: Any, *, size: int, seed: int = 0) -> None:
    """In the layout of CIFAR-10-C: an image tells its kind, severity and place."""
    draws, count = np.random.default_rng(seed), len(labels)
    folder.mkdir(exist_ok=True)
    np.save(folder / "labels.npy", np.tile(np.asarray(labels, dtype=np.uint8), 5))
    for kind in KINDS:
        shape = (5 * count, size, size, 3)
        np.save(folder / f"{kind}.npy", draws.integers(0, 256, shape, dtype=np.uint8))


def whole_labels(source: DataSource) -> list[int]:
    """Of all digits, by place."""
    parts = [replace(source, classes=None).split(s) for s in ("train", "val", "test")]
    places = np.concatenate([part.index for part in parts])
    return np.concatenate([part.labels for part in parts])[np.argsort(places)].tolist()


class Digits(NamedTuple):
    job: Job
    folder: Path
    labels: list[int]


@pytest.fixture(scope="module")
def digits(classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Digits:
    job = of_suite(job_of(classifier), "suite=corruptions", "suite.micro_batch=32")
    source: DataSource = build(job["data"])
    folder = tmp_path_factory.mktemp("published")
    labels = whole_labels(source)
    array_set(folder, labels, size=source.size)
    own = {**SUITE, "folder": str(folder)}
    return Digits(
        {**job, "suite": {**job["suite"], "corruptions": own}}, folder, labels
    )


def test_rows_are_a_direct_forward_of_the_files(digits: Digits, tmp_path: Path) -> None:
    """Image i of a severity is the one whose place in the data set is i."""
    run(digits.job, tmp_path)
    model, _ = load_classifier(digits.job["classifier"].path)
    _, _, index = chosen(digits.job)
    table = {(row.component, row.index): row for row in rows_in(tmp_path)}
    assert len(table) == LIMIT * 5
    count = len(digits.labels)
    for kind in KINDS:
        stored = np.load(digits.folder / f"{kind}.npy")
        for severity in (1, 5):
            own = stored[(severity - 1) * count : severity * count][index.numpy()]
            x = torch.from_numpy(own).permute(0, 3, 1, 2).float() / 255
            with torch.no_grad():
                told = model(x).argmax(1)
            for place, answer in zip(index.tolist(), told.tolist(), strict=True):
                row = table[f"{kind}@{severity}", place]
                assert row.predicted == answer
                assert row.label == digits.labels[place]
                assert (row.corruption, row.severity) == (kind, severity)
    found = read_json(tmp_path / "results.json")["corruptions"]
    assert (found["generated"], found["frost"]) == ("published", None)
    assert found["mce"] is None, "not of all fifteen kinds"


def checked(digits: Digits, folder: Path, **changes: Any) -> None:
    """What a command does before any worker starts."""
    data = {**digits.job["data"], **changes.pop("data", {})}
    split = changes.pop("split", "test")
    suite = {"corruptions": {**SUITE, "folder": str(folder), **changes}}
    check_files(suite, build(data).split(split), data, split)


def test_classes_and_limits_keep_each_image_its_own(digits: Digits) -> None:
    """Of classes 7 and 3 in this order, numbered anew, images are still their own."""
    data = {**digits.job["data"], "classes": [7, 3]}
    checked(digits, digits.folder, data=data)
    images = chosen_images({"data": data, "split": "test", "limit": 5})
    kind = corruptions_of({**SUITE, "folder": str(digits.folder)})["snow@5"]
    x = torch.zeros(5, 3, images.size, images.size)
    found = kind(x, seed=0, index=torch.from_numpy(images.index))
    stored = np.load(digits.folder / "snow.npy")[4 * len(digits.labels) :]
    assert np.array_equal(
        found.mul(255).round().permute(0, 2, 3, 1).numpy(), stored[images.index]
    )
    assert {digits.labels[place] for place in images.index} == {3, 7}


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda root: root.rename(root.with_name("gone")), "is no folder; give the"),
        (lambda root: (root / "snow.npy").unlink(), r"no snow.npy; fetch it, or leave"),
        (
            lambda root: np.save(root / "snow.npy", np.zeros((10, 8, 8, 3), np.uint8)),
            r"snow.npy is uint8 \[10, 8, 8, 3\], and should be uint8 \[8985, H, H, 3\]",
        ),
        (
            lambda root: np.save(root / "snow.npy", np.zeros((8985, SIDE, SIDE, 3))),
            r"snow.npy is float64 .* and should be uint8",
        ),
        (
            lambda root: np.save(root / "labels.npy", np.arange(10) % 5 + 1),
            "five times the labels of the test|should be uint8|more; choose",
        ),
        (
            lambda root: np.save(root / "labels.npy", np.arange(7)),
            "should be five times the labels",
        ),
        (
            lambda root: np.save(root / "fog.npy", np.array([{}]), allow_pickle=True),
            "fog.npy is no array of numpy's; fetch it again",
        ),
        (lambda root: (root / "labels.npy").unlink(), "neither labels.npy nor KIND"),
    ],
)
def test_files_that_cannot_be_used_are_told_of_in_one_line(
    digits: Digits, tmp_path: Path, spoil: Any, match: str
) -> None:
    root = tmp_path / "set"
    array_set(root, digits.labels, size=SIDE)
    checked(digits, root)
    spoil(root)
    with pytest.raises(UserError, match=match) as told:
        checked(digits, root)
    assert "\n" not in str(told.value)


def test_files_of_other_images_are_told_of(digits: Digits, tmp_path: Path) -> None:
    other = tmp_path / "other"
    array_set(other, [(label + 1) % 10 for label in digits.labels], size=SIDE)
    with pytest.raises(UserError, match=r"image \d+ is of class \d there and \d here"):
        checked(digits, other)
    small = tmp_path / "small"
    array_set(small, digits.labels, size=16)
    with pytest.raises(UserError, match="images of 16 px, and the data of 8; set data"):
        checked(digits, small)
    few = tmp_path / "few"
    array_set(few, digits.labels[:100], size=SIDE)
    with pytest.raises(UserError, match="has 100 images, and digits-test more"):
        checked(digits, few)
    with pytest.raises(UserError, match=r"of test images; set evaluate\.split=test"):
        checked(digits, digits.folder, split="val")


def test_an_evaluation_is_told_apart_by_what_files_hold(
    digits: Digits, tmp_path: Path
) -> None:
    """And not by where they are; a node with others is told of."""
    own = {**SUITE, "folder": str(digits.folder), "frost": None}
    moved, other = tmp_path / "moved", tmp_path / "other"
    array_set(moved, digits.labels, size=SIDE)
    array_set(other, digits.labels, size=SIDE, seed=1)
    known = corruption_identity(own)
    assert corruption_identity({**own, "folder": str(moved)}) == known
    assert corruption_identity({**own, "folder": str(other)}) != known
    assert str(tmp_path) not in str(known)
    none = {**SUITE, "folder": None, "frost": None}
    assert suite_identity({"corruptions": none}, {}) == {"corruptions": SUITE}
    assert files_of({"corruptions": none}) is None
    suite = {"corruptions": {**own, "folder": str(other)}}
    _check_files({"suite": suite, "files": files_of(suite)})
    with pytest.raises(UserError, match=r"^node .* reads other files of corruptions"):
        _check_files({"suite": suite, "files": files_of({"corruptions": own})})


def test_a_data_set_of_ones_own_has_its_files_too(tmp_path: Path) -> None:
    """In Python: place i of the data set is image i of the files."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(12, 3, 16, 16, generator=generator)
    y = torch.arange(12) % 3
    root = tmp_path / "set"
    array_set(root, y.tolist(), size=16)
    suite = {"attacks": {}, "micro_batch": 4, "curve": None}
    suite["corruptions"] = {**SUITE, "folder": str(root)}
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 3)).eval()
    data: Any = TensorDataset(x, y)
    found = evaluate(model, data, ball=Linf(0.1), out=tmp_path / "out", suite=suite)
    wrong = []
    for kind in KINDS:
        stored = torch.from_numpy(np.load(root / f"{kind}.npy")).permute(0, 3, 1, 2)
        for severity in (1, 5):
            own = stored[12 * (severity - 1) :][:12].float() / 255
            with torch.no_grad():
                wrong.append((model(own).argmax(1) != y).float().mean().item())
    error = found["corruptions"]["error"]["value"]
    assert error == pytest.approx(sum(wrong) / 4, abs=1e-5)
    array_set(root, (y + 1).tolist(), size=16)
    with pytest.raises(UserError, match="is not of the data set: image 0 is of class"):
        evaluate(model, data, ball=Linf(0.1), out=tmp_path / "again", suite=suite)


def image_tree(root: Path, names: list[str], *, seed: int) -> None:
    draws = np.random.default_rng(seed)
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = draws.integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)


def test_image_files_in_folders_are_read_by_their_names(tmp_path: Path) -> None:
    """The layout of ImageNet-C."""
    names = [f"n0{group}/val_{i}.JPEG" for group in (3, 1, 2) for i in (4, 2, 9)]
    image_tree(tmp_path / "data" / "train", names, seed=0)
    image_tree(tmp_path / "data" / "test", names, seed=1)
    for place, kind in enumerate(KINDS):
        for severity in (1, 5):
            root = tmp_path / "set" / kind / str(severity)
            image_tree(root, names, seed=10 * place + severity)
    data = {
        "_target_": "rrl_dist.data.datasets.DataSource",
        "name": "imagefolder",
        "root": str(tmp_path / "data"),
        "size": 16,
        "classes": ["n03", "n01"],
        "train_fraction": 1.0,
        "val_fraction": 0.0,
        "download": False,
        "mean": [0.5] * 3,
        "std": [0.2] * 3,
        "memory_limit_mb": 100,
        "on_error": "fail",
    }
    folder = str(tmp_path / "set")
    suite = {"corruptions": {**SUITE, "folder": folder}}
    images = build(data).split("test")
    check_files(suite, images, data, "test")
    found = corruptions_of(suite["corruptions"])["snow@5"](
        torch.zeros(6, 3, 16, 16), seed=0, index=torch.from_numpy(images.index)
    )
    ordered = sorted(names)
    for row, place in zip(found, images.index.tolist(), strict=True):
        path = tmp_path / "set" / "snow" / "5" / ordered[place]
        wanted = read_image(path, size=16)
        assert np.array_equal(row.mul(255).round().permute(1, 2, 0).numpy(), wanted)
    known = Published(folder).fingerprint(KINDS, [1, 5])
    image_tree(tmp_path / "set" / "fog" / "5", names, seed=77)
    assert Published(folder).fingerprint(KINDS, [1, 5]) != known
    first = tmp_path / "set" / "fog" / "1" / "n01"
    (first / "val_2.JPEG").rename(first / "val_3.JPEG")
    names_below.cache_clear()
    with pytest.raises(UserError, match=r"image 0 is n01/val_3.JPEG there and n01/val"):
        check_files(suite, images, data, "test")
