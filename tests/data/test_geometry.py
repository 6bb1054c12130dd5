"""Each operation against torchvision's, applied sample by sample."""

import pytest
import torch
import torchvision.transforms.v2.functional as tv
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import RandomResizedCrop as TorchvisionCrop

from rrl_dist.core.errors import UserError
from rrl_dist.core.randomness import uniform
from rrl_dist.data.geometry import (
    GaussianBlur,
    HorizontalFlip,
    RandomCrop,
    RandomResizedCrop,
    Rotation,
    blurred,
    resized,
    turned,
)

KEY = ("test", 1)


def images(count: int, high: int, wide: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.rand(count, 3, high, wide, generator=generator)


def drawn(n: int, count: int) -> torch.Tensor:
    return uniform(0, *KEY, index=torch.arange(count), n=n)


def applied(operation, x):
    return operation(x, seed=0, key=KEY, index=torch.arange(len(x)))


def test_flip_mirrors_the_chosen_and_no_other():
    x = images(40, 5, 7)
    chosen = drawn(1, 40)[:, 0] < 0.3
    wanted = [tv.horizontal_flip(a) if c else a for a, c in zip(x, chosen, strict=True)]
    assert torch.equal(applied(HorizontalFlip(p=0.3), x), torch.stack(wanted))
    assert 4 <= chosen.sum() <= 20


def test_crop_is_a_window_of_the_padded_image():
    x = images(60, 9, 6)
    offsets = (drawn(2, 60) * 7).long().tolist()
    wanted = [
        tv.crop(tv.pad(a, [3]), top, left, 9, 6)
        for a, (top, left) in zip(x, offsets, strict=True)
    ]
    assert torch.equal(applied(RandomCrop(padding=3), x), torch.stack(wanted))
    assert {top for top, _ in offsets} == {left for _, left in offsets} == set(range(7))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_resized_box_equals_torchvision(data):
    high, wide = data.draw(st.integers(4, 40)), data.draw(st.integers(4, 40))
    out = (data.draw(st.integers(3, 40)), data.draw(st.integers(3, 40)))
    h, w = data.draw(st.integers(1, high)), data.draw(st.integers(1, wide))
    top, left = data.draw(st.integers(0, high - h)), data.draw(st.integers(0, wide - w))
    x = images(2, high, wide)
    box = torch.tensor([[top, left, h, w], [0, 0, high, wide]], dtype=torch.float64)
    found = resized(x, box, out)
    for image, place, got in zip(x, box.int().tolist(), found, strict=True):
        wanted = tv.resized_crop(image, *place, list(out), antialias=False)
        torch.testing.assert_close(got, wanted, atol=2e-5, rtol=0)


@pytest.mark.parametrize("shape", [(32, 32), (20, 45)])
def test_boxes_are_distributed_as_torchvision_draws_them(shape):
    high, wide = shape
    crop = RandomResizedCrop(size=None, scale=[0.08, 1.0], ratio=[0.75, 4 / 3])
    draws = drawn(22, 20_000).double()
    box = crop.boxes(draws, height=high, width=wide)
    torch.manual_seed(0)
    theirs = TorchvisionCrop(32, scale=(0.08, 1.0), ratio=(0.75, 4 / 3))
    x = torch.zeros(3, high, wide)
    made = [theirs.make_params([x]) for _ in range(4000)]
    keys = ("top", "left", "height", "width")
    reference = torch.tensor([[m[key] for key in keys] for m in made]).double()
    error = 5 * reference.std(0) / 4000**0.5 + 1e-9
    assert ((box.mean(0) - reference.mean(0)).abs() < error).all()
    assert ((box.std(0) - reference.std(0)).abs() < error).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 60), st.integers(2, 60), st.floats(0.05, 0.9))
def test_boxes_lie_inside_the_image(high, wide, low):
    crop = RandomResizedCrop(size=None, scale=[low, 1.0], ratio=[0.75, 4 / 3])
    top, left, h, w = crop.boxes(
        drawn(22, 300).double(), height=high, width=wide
    ).unbind(1)
    assert min(top.min(), left.min()) >= 0
    assert min(h.min(), w.min()) >= 1
    assert (top + h).max() <= high
    assert (left + w).max() <= wide


def test_where_no_try_fits_the_fallback_is_the_centre():
    crop = RandomResizedCrop(size=None, scale=[5.0, 6.0], ratio=[0.5, 2.0])
    box = crop.boxes(drawn(22, 3).double(), height=10, width=40)
    assert box.tolist() == [[0, 10, 10, 20]] * 3
    box = crop.boxes(drawn(22, 3).double(), height=40, width=10)
    assert box.tolist() == [[10, 0, 20, 10]] * 3


def test_size_sets_the_output_and_none_keeps_the_input():
    crop = {"scale": [0.5, 1.0], "ratio": [0.75, 1.33]}
    x = images(3, 20, 24)
    assert applied(RandomResizedCrop(size=16, **crop), x).shape == (3, 3, 16, 16)
    assert applied(RandomResizedCrop(size=None, **crop), x).shape == (3, 3, 20, 24)


@pytest.mark.parametrize("kernel", [1, 3, 9])
def test_blur_equals_torchvision_sample_by_sample(kernel):
    x = images(6, 20, 17)
    sigma = torch.linspace(0.1, 2.0, 6, dtype=torch.float64)
    found = blurred(x, sigma, kernel)
    for image, s, got in zip(x, sigma.tolist(), found, strict=True):
        wanted = tv.gaussian_blur(image, [kernel, kernel], [s, s])
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=0)


def test_blur_touches_the_chosen_and_no_other():
    x = images(100, 12, 12)
    chosen = drawn(2, 100)[:, 0] < 0.4
    y = applied(GaussianBlur(p=0.4, sigma=[1.0, 2.0], kernel=5), x)
    assert torch.equal((y != x).flatten(1).any(1), chosen)
    assert 25 < chosen.sum() < 55


def test_blur_refuses_kernels_that_cannot_be():
    with pytest.raises(UserError, match="even"):
        GaussianBlur(p=1.0, sigma=[1.0, 1.0], kernel=4)
    blur = GaussianBlur(p=1.0, sigma=[1.0, 1.0], kernel=9)
    with pytest.raises(UserError, match="set it to 7 or less"):
        applied(blur, images(2, 4, 9))


@pytest.mark.parametrize("shape", [(32, 32), (9, 20)])
def test_a_turn_takes_the_pixels_that_torchvision_takes(shape):
    x = images(9, *shape) + 0.1  # black is outside alone
    angle = torch.linspace(-175.3, 180, 9, dtype=torch.float64)
    wanted = [tv.rotate(a, float(d)) for a, d in zip(x, angle, strict=True)]
    # Places between two pixels may round to either.
    same = (turned(x, angle.deg2rad()) == torch.stack(wanted)).float().mean()
    assert same > 0.99


def test_rotation_draws_its_angles_to_both_sides():
    x = images(50, 32, 32)
    angle = 20 * (2 * drawn(1, 50)[:, 0].double() - 1)
    assert angle.min() < -15
    assert angle.max() > 15
    assert torch.equal(applied(Rotation(degrees=20.0), x), turned(x, angle.deg2rad()))
    assert torch.equal(applied(Rotation(degrees=0.0), x), x)
    black = applied(Rotation(degrees=20.0), torch.ones_like(x))[:, 0, 0, 0] == 0
    assert torch.equal(black, angle.abs() > 2), "corners of those that turn enough"


def test_rotation_refuses_angles_that_cannot_be():
    with pytest.raises(UserError, match=r"degrees=-1; set at least 0"):
        Rotation(degrees=-1)
