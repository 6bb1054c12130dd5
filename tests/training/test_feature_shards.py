"""Features on disk: a head from them is the head from images."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import file_hash
from rrl_dist.data.memory_loader import MemoryLoader, read_images
from rrl_dist.training import feature_shards
from rrl_dist.training.build import build, load_encoder
from rrl_dist.training.feature_shards import FeatureLoader, Shards, features_of
from rrl_dist.training.journal import read_metrics
from rrl_dist.training.rehearsal import rehearse
from tests.gloo import run_workers
from tests.training.stages import (
    Stage,
    composed,
    differences,
    probing,
    stop_and_go_on,
    train,
    untrained,
)

CPU = torch.device("cpu")
CACHED = ("protocol=slf_cached",)
FEW = 300  # images of a shard: five of the digits' 1,293


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_shards, "IMAGES", FEW)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained(tmp_path_factory.mktemp("cached") / "encoder")


def shards_at(folder: Path, encoder: Path) -> Shards:
    images = build(composed()["data"]).split("train")
    return Shards(folder, images, file_hash(encoder / "model.safetensors"))


def computed(shards: Shards, encoder: Path) -> tuple[torch.Tensor, list[str]]:
    """The features, and what was told."""
    told: list[str] = []
    model, _ = load_encoder(encoder)
    return features_of(shards, model, CPU, told.append), told


def train_small(stage: Stage, folder: Path) -> None:
    """What each worker does; a patch does not reach other processes."""
    feature_shards.IMAGES = FEW
    train(stage, folder)


def head_of(folder: Path) -> dict[str, torch.Tensor]:
    state = load_file(folder / "model.safetensors")
    return {name: value for name, value in state.items() if name.startswith("head.")}


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_metrics(folder / "metrics.jsonl")]


def assert_same_head(one: Path, other: Path) -> None:
    assert losses(one) == pytest.approx(losses(other), rel=1e-4)
    for name, value in head_of(one).items():
        torch.testing.assert_close(head_of(other)[name], value, rtol=1e-3, atol=1e-4)


def test_a_head_from_features_is_the_head_from_images(
    encoder: Path, tmp_path: Path
) -> None:
    train(probing(encoder, "protocol=slf"), tmp_path / "images")
    train(probing(encoder, *CACHED), tmp_path / "features")
    assert_same_head(tmp_path / "images", tmp_path / "features")
    # The encoder is in the classifier, and what was kept for the stage is gone.
    one, other = (
        load_file(tmp_path / name / "model.safetensors")
        for name in ("images", "features")
    )
    same = [torch.equal(one[k], other[k]) for k in one if k.startswith("encoder.")]
    assert same
    assert all(same)
    assert not (tmp_path / "features/features").exists()


@pytest.mark.slow
def test_two_workers_train_the_head_that_one_does(
    encoder: Path, tmp_path: Path
) -> None:
    stage = probing(encoder, *CACHED)
    train(stage, tmp_path / "one")
    run_workers(2, train_small, stage, tmp_path / "two")
    assert_same_head(tmp_path / "one", tmp_path / "two")


def test_a_stage_that_was_stopped_ends_as_if_it_had_not_been(
    encoder: Path, tmp_path: Path
) -> None:
    stage = probing(encoder, *CACHED)
    train(stage, tmp_path / "whole")
    assert stop_and_go_on(stage, tmp_path / "stopped") == 4
    assert not differences(tmp_path / "whole", tmp_path / "stopped")


def test_shards_hold_what_the_encoder_says(encoder: Path, tmp_path: Path) -> None:
    shards = shards_at(tmp_path, encoder)
    h, told = computed(shards, encoder)
    assert (shards.count, told) == (5, [])
    model, _ = load_encoder(encoder)
    everything = read_images(shards.images, np.arange(len(shards.images)))
    with torch.no_grad():
        expected = model.eval()(everything.float() / 255)
    torch.testing.assert_close(h, expected, rtol=1e-4, atol=1e-5)


class Counting(nn.Module):
    """Counts the images that pass."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.seen = module, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen += len(x)
        found: torch.Tensor = self.module(x)
        return found


def test_after_half_of_the_shards_only_the_others_are_computed(
    encoder: Path, tmp_path: Path
) -> None:
    shards = shards_at(tmp_path / "one", encoder)
    whole, _ = computed(shards, encoder)
    begun = shards_at(tmp_path / "two", encoder)
    for number in (0, 1, 3):
        begun.path(number).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(shards.path(number), begun.path(number))
    told: list[str] = []
    model = Counting(load_encoder(encoder)[0])
    h = features_of(begun, model, CPU, told.append)
    assert torch.equal(h, whole)
    assert told == ["3 of 5 shards of features are there"]
    left = sum(len(shards.positions(number)) for number in (2, 4))
    assert left <= model.seen < left + 2 * 32


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(bytes(content))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def forge(path: Path) -> None:
    """A file of the right shape that says nothing of itself."""
    h = load_file(path)["features"]
    save_file({"features": torch.zeros_like(h)}, path)


@pytest.mark.parametrize("damage", [cut, flip, empty, forge])
def test_a_damaged_shard_is_found_and_made_anew(
    damage: Callable[[Path], None], encoder: Path, tmp_path: Path
) -> None:
    shards = shards_at(tmp_path, encoder)
    whole, _ = computed(shards, encoder)
    before = shards.read(2)
    damage(shards.path(2))
    assert shards.read(2) is None
    again, told = computed(shards, encoder)
    assert torch.equal(again, whole)
    assert before is not None
    assert torch.equal(again[shards.positions(2)], before)
    assert shards.read(2) is not None
    assert "00002.safetensors is damaged" in told[0]


def test_shards_of_other_weights_or_images_are_not_taken(
    encoder: Path, tmp_path: Path
) -> None:
    shards = shards_at(tmp_path, encoder)
    computed(shards, encoder)
    others = Shards(tmp_path, shards.images, "other")
    fewer = Shards(tmp_path, shards.images.select(range(900)), shards.encoder)
    assert [others.read(n) for n in range(5)] == [None] * 5
    assert [fewer.read(n) for n in range(3)] == [None] * 3


IMAGES = build(composed()["data"]).split("train").select(range(40))


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(40)), st.integers(1, 9))
def test_batches_are_those_of_the_images(order: list[int], size: int) -> None:
    images = IMAGES
    positions = torch.tensor(order).numpy()
    features = torch.arange(80.0).reshape(40, 2)
    own = FeatureLoader(features, images, batch_size=size).batches(positions)
    known = MemoryLoader(images, batch_size=size, workers=0).batches(positions)
    for batch, other in zip(own, known, strict=True):
        assert torch.equal(batch.labels, other.labels)
        assert torch.equal(batch.index, other.index)
        places = torch.searchsorted(torch.tensor(images.index), batch.index)
        assert torch.equal(batch.images, features[places])


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (("views@protocol.views=digits_weak",), "set views@protocol.views=none, or"),
        (("protocol.objective.train_encoder=true",), "more than a frozen encoder's"),
        (("protocol=alf_pgd", "protocol.cache_features=true"), "pgd_at trains on more"),
    ],
)
def test_what_cannot_be_kept_is_refused(
    overrides: tuple[str, ...], told: str, encoder: Path
) -> None:
    stage = probing(encoder, *CACHED, *overrides)
    with pytest.raises(UserError, match=told) as error:
        rehearse("probe", stage, size=8, num_classes=10, workers=1)
    assert "\n" not in str(error.value)
