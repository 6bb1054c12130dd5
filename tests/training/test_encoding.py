"""A folder of images encoded by Ray tasks: the file that one process writes."""

from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from rrl_dist.cli import prepare
from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import file_hash
from rrl_dist.data import shards
from rrl_dist.data.datasets import DataSource
from rrl_dist.data.folder import FolderImages
from rrl_dist.data.prepare import beton_of
from rrl_dist.data.seal import sealed_hash
from rrl_dist.training.build import build
from rrl_dist.training.cluster import session
from rrl_dist.training.encoding import encoder_on
from tests.composing import compose

pytestmark = pytest.mark.slow
pytest.importorskip("ffcv", reason="FFCV is not installed")

COUNT, SIDE = 150, 224


@pytest.fixture(scope="module")
def cluster() -> Iterator[Mapping[str, Any]]:
    local = {"kind": "local", "workers": 1, "threads": 1, "gpu": False}
    with session(local) as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey noise, of which JPEG makes much: the file has several pages."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for i in range(COUNT):
        grey = generator.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
        file = folder / "ab"[i % 2] / f"{i}.png"
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(grey).save(file, compress_level=0)
    return folder


def configured(folder: Path, betons: Path, kind: str) -> dict[str, Any]:
    return compose(
        "prepare",
        "data=imagefolder",
        f"data.root={folder}",
        f"data.size={SIDE}",
        "data.memory_limit_mb=0",
        "splits=[train]",
        f"cluster={kind}",
        f"betons={betons}",
    )


def test_tasks_write_the_bytes_that_one_process_writes(
    folder: Path,
    cluster: Mapping[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shards, "_MOST", 16)  # more shards than are under way at once
    monkeypatch.setattr(prepare, "session", lambda config: nullcontext(cluster))
    files = []
    for kind in ("debug", "local"):
        config = configured(folder, tmp_path / kind, kind)
        prepare.prepare(config, "")
        source: DataSource = build(config["data"])
        files.append(beton_of(tmp_path / kind, source.split("train")))
    here, there = files
    assert here.stat().st_size > 3 * (1 << 21)
    assert here.read_bytes() == there.read_bytes()
    assert sealed_hash(here) == sealed_hash(there) == file_hash(there)


def test_what_a_node_cannot_read_is_named(
    folder: Path, cluster: Mapping[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "3.png"
    whole = (folder / "b" / "3.png").read_bytes()
    images = FolderImages(tmp_path, ("3.png",), (len(whole),), SIDE)
    encoder = encoder_on(lambda: cluster)
    file.write_bytes(b"spoilt".ljust(len(whole)))
    with pytest.raises(UserError, match=r"^node \S+: cannot read .*/3\.png"):
        list(encoder(images, 90))
    file.write_bytes(whole + b"more")
    with pytest.raises(UserError, match=r"3\.png is another file than on the driver"):
        list(encoder(images, 90))
    file.unlink()
    with pytest.raises(UserError, match=r"no file \S+3\.png; set data\.root"):
        list(encoder(images, 90))
    colours = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(colours).save(file)
    images = FolderImages(tmp_path, ("3.png",), (file.stat().st_size,), SIDE)
    with pytest.raises(RuntimeError, match=r"3\.png was not read back as encoded"):
        list(encoder(images, 5))


def test_nodes_that_are_lost_for_good_are_told_in_one_line(
    folder: Path, cluster: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After Ray has run a task again as often as it does."""
    from ray.exceptions import NodeDiedError, WorkerCrashedError

    file = folder / "a" / "0.png"
    images = FolderImages(folder, ("a/0.png",), (file.stat().st_size,), SIDE)
    for lost in (NodeDiedError("the node died\nand more"), WorkerCrashedError()):
        monkeypatch.setattr("ray.get", Raising(lost))
        with pytest.raises(UserError, match="their nodes were lost") as refusal:
            list(encoder_on(lambda: cluster)(images, 90))
        assert "\n" not in str(refusal.value)


class Raising:
    """A function that raises."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __call__(self, *args: Any) -> Any:
        raise self.error
