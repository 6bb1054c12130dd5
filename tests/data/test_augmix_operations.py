"""Each of AugMix's operations against Pillow's, image by image."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torch import Tensor

from rrl_dist.data.augmix_operations import NAMES, apply, equalize

CUT = 1 / 255 + 1e-5  # Pillow cuts decimals off where pixels are mixed


def photographs(count: int, high: int, wide: int, seed: int = 0) -> Tensor:
    """Smooth uint8 images, [N, 3, H, W], whose values lie in a part of the range."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (high, wide), mode="bicubic")
    noise = torch.rand(count, 3, high, wide, generator=generator)
    return (40 + 150 * smooth.clamp(0, 1) + 20 * noise).to(torch.uint8)


def applied(name: str, x: Tensor, level: float, sign: float = 1.0) -> Tensor:
    """One operation at one level on uint8 images."""
    count = len(x)
    operation = torch.full((count,), NAMES.index(name))
    levels = torch.full((count,), level, dtype=torch.float64)
    return apply(x.float() / 255, operation, levels, torch.full_like(levels, sign))


def pillow(name: str, image: Image.Image, level: float, sign: float) -> Image.Image:
    """As the authors' code calls it, its parameters written out."""
    wide, high = image.size
    whole = {
        "posterize": int(level * 4 / 10),
        "solarize": int(level * 256 / 10),
        "rotate": int(level * 30 / 10),
        "translate_x": int(level * (wide / 3) / 10),
        "translate_y": int(level * (high / 3) / 10),
    }.get(name, 0)
    shear = level * 0.3 / 10
    rows = {
        "shear_x": (1, sign * shear, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, sign * shear, 1, 0),
        "translate_x": (1, 0, sign * whole, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, sign * whole),
    }
    if name in rows:
        options = {"resample": Image.Resampling.BILINEAR}
        return image.transform(
            image.size, Image.Transform.AFFINE, rows[name], **options
        )
    if name == "rotate":
        return image.rotate(sign * whole, resample=Image.Resampling.BILINEAR)
    if name == "posterize":
        return ImageOps.posterize(image, 4 - whole)
    if name == "solarize":
        return ImageOps.solarize(image, 256 - whole)
    if name == "autocontrast":
        return ImageOps.autocontrast(image)
    return ImageOps.equalize(image)


def by_pillow(name: str, x: Tensor, level: float, sign: float) -> Tensor:
    found = [
        np.array(pillow(name, Image.fromarray(one), level, sign))
        for one in x.permute(0, 2, 3, 1).numpy()
    ]
    return torch.as_tensor(np.stack(found)).permute(0, 3, 1, 2).float() / 255


@pytest.mark.parametrize("name", ["posterize", "solarize"])
@settings(max_examples=40, deadline=None)
@given(level=st.floats(0.1, 10), seed=st.integers(0, 99))
def test_what_changes_values_one_by_one_is_pillows_to_the_bit(
    name: str, level: float, seed: int
) -> None:
    x = photographs(2, 9, 12, seed)
    x[0, :, 0] = torch.arange(12) * 23  # from 0 to near 255
    wanted = by_pillow(name, x, level, 1)
    assert torch.equal((applied(name, x, level) * 255).round(), wanted * 255)


def test_autocontrast_is_pillows_before_it_cuts_decimals_off() -> None:
    x = photographs(30, 16, 16)
    x[0, 0] = 77  # of one value: it stays
    found = applied("autocontrast", x, 1.0)
    apart = found - by_pillow("autocontrast", x, 1.0, 1)
    assert float(apart.min()) > -1e-5
    assert float(apart.max()) < CUT
    assert torch.equal(found[0, 0], x[0, 0] / 255)
    assert float(found[1:].amin()) == 0
    assert float(found[1:].amax((2, 3)).min()) == 1


@pytest.mark.parametrize("name", NAMES[NAMES.index("rotate") :])
@settings(max_examples=40, deadline=None)
@given(
    level=st.floats(0.1, 10),
    sign=st.sampled_from([-1, 1]),
    high=st.integers(5, 40),
    wide=st.integers(5, 40),
)
def test_what_moves_pixels_is_pillows_before_it_cuts_decimals_off(
    name: str, level: float, sign: int, high: int, wide: int
) -> None:
    x = photographs(2, high, wide)
    apart = applied(name, x, level, sign) - by_pillow(name, x, level, sign)
    # A place within 1e-9 pixels of the edge may be in or out by rounding.
    wrong = (apart < -1e-5) | (apart > CUT)
    assert int(wrong.any(1).sum()) <= 2 * 2


def literally_equalized(channel: list[int]) -> list[float]:
    """The share of darker pixels among those that are not of the brightest value."""
    others = sum(v < max(channel) for v in channel)
    if others == 0:
        return [v / 255 for v in channel]
    return [min(1.0, sum(w < v for w in channel) / others) for v in channel]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 255), min_size=12, max_size=12))
def test_equalize_is_the_share_of_darker_pixels(values: list[int]) -> None:
    x = torch.tensor(values).view(1, 1, 3, 4).expand(-1, 3, -1, -1)
    found = equalize(x / 255, torch.ones(1))
    wanted = torch.tensor(literally_equalized(values)).view(3, 4)
    for channel in found[0]:
        torch.testing.assert_close(channel, wanted, atol=1e-6, rtol=0)


def test_equalize_is_pillows_where_there_are_many_pixels() -> None:
    """Its step is whole: 255 levels on 256 x 256 pixels differ by at most 3."""
    x = photographs(4, 256, 256)
    apart = applied("equalize", x, 1.0) - by_pillow("equalize", x, 1.0, 1)
    assert float(apart.abs().max()) < 3 / 255
    # As many pixels as make the step exact: all but 255 times 100 are brightest.
    x = photographs(3, 200, 200).clamp(max=150)
    flat = x.flatten(2)
    flat[:, :, : 40_000 - 25_500] = 255
    flat[:, :, 40_000 - 25_500 :].clamp_(max=254)
    apart = applied("equalize", x, 1.0) - by_pillow("equalize", x, 1.0, 1)
    assert float(apart.abs().max()) < CUT


def test_equalize_does_something_to_sixteen_pixels_where_pillow_does_not() -> None:
    x = photographs(1, 16, 16)
    x[:, :, :2, :2] = 255
    assert torch.equal(by_pillow("equalize", x, 1.0, 1), x / 255)
    assert float((applied("equalize", x, 1.0) - x / 255).abs().mean()) > 0.1


def test_the_least_level_moves_and_inverts_nothing() -> None:
    x = photographs(4, 32, 32)
    for name in ("rotate", "translate_x", "translate_y", "solarize"):
        assert torch.equal(applied(name, x, 0.1), x / 255), name
    for name in ("shear_x", "shear_y"):
        coordinate = torch.arange(32.0)
        ramp = coordinate.expand(1, 3, 32, 32) / 64
        ramp = ramp if name == "shear_x" else ramp.transpose(2, 3)
        one = torch.ones(1, dtype=torch.float64)
        place = torch.tensor([NAMES.index(name)])
        shift = (apply(ramp, place, 0.1 * one, one) - ramp)[..., 1:-1, 1:-1] * 64
        assert 0 < float(shift.max()) < 0.1, "pixels"


def test_a_second_direction_is_the_first_ones_mirror_image() -> None:
    x = photographs(3, 20, 20)
    for name in ("rotate", "translate_x"):
        ahead = applied(name, x.flip(3), 10, 1)
        torch.testing.assert_close(ahead.flip(3), applied(name, x, 10, -1))


def test_each_row_gets_its_own_operation_and_minus_one_none() -> None:
    x = photographs(len(NAMES) + 1, 16, 16)
    levels = torch.linspace(1, 10, len(x), dtype=torch.float64)
    signs = torch.tensor([1.0, -1.0] * 5, dtype=torch.float64)
    kinds = torch.arange(-1, len(NAMES))
    given = x / 255
    before = given.clone()
    found = apply(given, kinds, levels, signs)
    assert torch.equal(given, before), "the input is not changed"
    assert torch.equal(found[0], given[0])
    for row, name in enumerate(NAMES, start=1):
        alone = applied(name, x[row, None], float(levels[row]), float(signs[row]))
        assert torch.equal(found[row], alone[0]), name
        assert not torch.equal(found[row], given[row]), name


def test_these_are_the_nine_and_none_of_the_test_corruptions() -> None:
    moving = {f"{kind}_{axis}" for kind in ("shear", "translate") for axis in "xy"}
    plain = {"autocontrast", "equalize", "posterize", "solarize", "rotate"}
    assert set(NAMES) == moving | plain
    assert len(NAMES) == 9


def test_a_turn_is_counter_clockwise() -> None:
    x = torch.zeros(1, 3, 33, 33, dtype=torch.uint8)
    x[:, :, 16, 30] = 255  # at the right
    found = applied("rotate", x, 10.0)[0, 0]  # 30 degrees
    row, column = divmod(int(found.argmax()), 33)
    expected = (16 - 14 * math.sin(math.pi / 6), 16 + 14 * math.cos(math.pi / 6))
    assert math.dist((row, column), expected) < 1
