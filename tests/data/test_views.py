from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from rrl_dist.data.geometry import HorizontalFlip, RandomResizedCrop
from rrl_dist.data.views import Views

CONFIGS = Path(__file__).parents[2] / "configs" / "views"
NAMES = sorted(file.stem for file in CONFIGS.glob("*.yaml"))
PAIRS = {"simclr", "asymmetric", "symmetric_weak", "vicreg", "strong_weak"}
PAIRS |= {"digits", "digits_crops", "digits_strong_weak"}


def configured(name: str) -> Views:
    config = OmegaConf.to_container(OmegaConf.load(CONFIGS / f"{name}.yaml"))
    return instantiate(config, _convert_="all")


def images(count: int, side: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 3, side, side)
    return torch.randint(0, 256, shape, generator=generator).to(torch.uint8)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", [28, 32, 37])
def test_each_config_gives_its_views_in_range_at_the_input_size(name, side):
    views = configured(name)
    found = views(images(50, side), torch.arange(50), seed=0, epoch=0)
    assert len(found) == len(views) == (2 if name in PAIRS else 1)
    for view in found:
        assert view.shape == (50, 3, side, side)
        assert view.dtype == torch.float32
        assert view.min() >= 0
        assert view.max() <= 1


def test_an_empty_policy_gives_the_stored_image():
    stored = images(5, 32)
    (view,) = configured("none")(stored, torch.arange(5), seed=0, epoch=0)
    assert torch.equal(view, stored.float() / 255)
    (again,) = configured("none")(view, torch.arange(5), seed=0, epoch=0)
    assert torch.equal(again, view)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("side", [27, 32, 96])
@settings(max_examples=6, deadline=None)
@given(order=st.permutations(range(70)), cut=st.integers(1, 69))
def test_a_sample_has_the_same_bits_in_any_batch(name, side, order, cut):
    views = configured(name)
    stored, index = images(70, side), torch.arange(70) * 13 + 5
    whole = views(stored, index, seed=3, epoch=2)
    rows = torch.tensor(order)
    parts = [rows[:cut], rows[cut:], rows[:1]]
    for part in parts:
        found = views(stored[part], index[part], seed=3, epoch=2)
        for view, expected in zip(found, whole, strict=True):
            assert torch.equal(view, expected[part])


def test_portions_and_threads_do_not_change_a_bit(monkeypatch):
    views, stored, index = configured("simclr"), images(60, 33), torch.arange(60)
    whole = views(stored, index, seed=0, epoch=0)
    before = torch.get_num_threads()
    monkeypatch.setattr("rrl_dist.data.views._PORTION_BYTES", 1 << 17)
    torch.set_num_threads(2)
    try:
        portions = views(stored, index, seed=0, epoch=0)
    finally:
        torch.set_num_threads(before)
    for view, expected in zip(portions, whole, strict=True):
        assert torch.equal(view, expected)


@pytest.mark.parametrize("name", ["weak", "digits_weak", "simclr", "digits"])
def test_views_differ_between_epochs_seeds_views_and_samples(name):
    views = configured(name)
    same = images(1, 32).expand(40, -1, -1, -1)
    index = torch.arange(40)

    def distinct(*batches: torch.Tensor) -> float:
        rows = torch.cat([batch.flatten(1) for batch in batches])
        return len(torch.unique(rows, dim=0)) / len(rows)

    first = views(same, index, seed=0, epoch=0)
    assert distinct(*first) > 0.5
    for other in ({"seed": 0, "epoch": 1}, {"seed": 1, "epoch": 0}):
        changed = views(same, index, **other)[0] != first[0]
        assert changed.flatten(1).any(1).float().mean() > 0.9
    if len(first) == 2:
        assert (first[0] != first[1]).flatten(1).any(1).float().mean() > 0.9


def test_two_operations_of_one_kind_draw_apart():
    twice = Views(policies=[[HorizontalFlip(p=0.5), HorizontalFlip(p=0.5)]])
    stored = images(200, 8)
    (view,) = twice(stored, torch.arange(200), seed=0, epoch=0)
    kept = (view == stored.float() / 255).flatten(1).all(1)
    assert 60 < kept.sum() < 140


def test_the_images_given_are_not_changed():
    stored = images(20, 32).float() / 255
    before = stored.clone()
    for name in NAMES:
        configured(name)(stored, torch.arange(20), seed=0, epoch=0)
    assert torch.equal(stored, before)


@pytest.mark.gpu
def test_views_on_a_gpu_are_those_of_the_cpu():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    stored, index = images(200, 32), torch.arange(200)
    for name in NAMES:
        views = configured(name)
        here = views(stored, index, seed=0, epoch=0)
        there = views(stored.cuda(), index, seed=0, epoch=0)
        for view, expected in zip(there, here, strict=True):
            assert view.is_cuda
            torch.testing.assert_close(view.cpu(), expected, atol=2e-4, rtol=0)
            alone = views(stored[:7].cuda(), index[:7], seed=0, epoch=0)
        assert torch.equal(alone[-1], there[-1][:7])


def test_the_size_of_a_view_is_told_before_any_is_drawn():
    crop = RandomResizedCrop(size=12, scale=(0.5, 1.0), ratio=(1.0, 1.0))
    views = Views(policies=[[crop], []])
    images = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    drawn = views(images, torch.arange(2), seed=0, epoch=0)
    assert views.size(16) == drawn[0].shape[-1] == 12
    assert Views(policies=[[]]).size(16) == 16
