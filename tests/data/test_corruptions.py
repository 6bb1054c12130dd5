import math
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats
from torch import Tensor

from rrl_dist.core.errors import UserError
from rrl_dist.core.randomness import uniform
from rrl_dist.data.corruptions import (
    SEVERITIES,
    check_corruption,
    corrupt,
    corruption_names,
)

NAMES = corruption_names()
NOISES = ("gaussian_noise", "shot_noise", "impulse_noise")
SEED = 3
LARGE = 80  # pixels: more than 64

every = pytest.mark.parametrize("name", NAMES)
sizes = pytest.mark.parametrize("size", [16, LARGE])
Array = np.ndarray[Any, np.dtype[np.float64]]


def images(n: int, size: int, *, seed: int = 0) -> Tensor:
    """Of 8 bits: patches of one colour, from black to white, and some noise."""
    generator = torch.Generator().manual_seed(seed)
    patches = torch.rand(n, 3, 8, 8, generator=generator)
    x = patches.repeat_interleave(size // 8, 2).repeat_interleave(size // 8, 3)
    x = 1.2 * x - 0.1 + 0.1 * torch.rand(x.shape, generator=generator)
    return x.clamp(0, 1).mul(255).round() / 255


def draws(name: str, severity: int, index: int, n: int) -> Array:
    """One sample's, in (0, 1)."""
    u = uniform(SEED, "corruption", name, severity, index=torch.tensor([index]), n=n)
    return u[0].double().numpy() + 2.0**-25


# The second implementations: one image [H, W, 3] as float64 in [0, 1], as the authors'
# generators have it, but for the draws, which are given.
def gaussian_noise(x: Array, constant: Any, name: str, s: int, index: int) -> Array:
    u = draws(name, s, index, 2 * x.size)
    z = [
        math.sqrt(-2 * math.log(a)) * math.cos(2 * math.pi * b)
        for a, b in zip(u[: x.size], u[x.size :], strict=True)
    ]
    return x + constant * channels_last(np.array(z), x)


def shot_noise(x: Array, constant: Any, name: str, s: int, index: int) -> Array:
    u = channels_last(draws(name, s, index, x.size), x)
    return np.asarray(stats.poisson.ppf(u, x * constant)) / constant


def impulse_noise(x: Array, constant: Any, name: str, s: int, index: int) -> Array:
    u = channels_last(draws(name, s, index, x.size), x)
    y = x.copy()
    y[u < constant] = 1
    y[u < constant / 2] = 0
    return y


def defocus_blur(x: Array, constant: Any, name: str, s: int, index: int) -> Array:
    kernel = disk(*constant)
    return np.stack(
        [ndimage.correlate(x[..., c], kernel, mode="mirror") for c in range(3)], 2
    )


@cache
def disk(radius: float, smoothing: float) -> Array:
    side, half = (8, 1) if radius <= 8 else (int(radius), 2)
    rows = range(-side, side + 1)
    found = np.array([[float(i * i + j * j <= radius**2) for j in rows] for i in rows])
    taps = np.array(
        [math.exp(-((i / smoothing) ** 2) / 2) for i in range(-half, half + 1)]
    )
    taps /= taps.sum()
    return ndimage.correlate(found / found.sum(), np.outer(taps, taps), mode="mirror")


def gaussian_blur(x: Array, constant: Any, name: str, s: int, index: int) -> Array:
    found = [
        ndimage.gaussian_filter(x[..., c], constant, mode="nearest", truncate=4.0)
        for c in range(3)
    ]
    return np.stack(found, 2)


def contrast(x: Array, constant: Any, name: str, s: int, index: int) -> Array:
    means = x.mean(axis=(0, 1), keepdims=True)
    return (x - means) * constant + means


def channels_last(values: Array, x: Array) -> Array:
    height, width, channels = x.shape
    return values.reshape(channels, height, width).transpose(1, 2, 0)


Slow = Callable[[Array, Any, str, int, int], Array]
# With the published constants, of make_cifar_c.py and of ImageNet-C's corruptions.py.
SLOW: dict[str, tuple[Slow, list[Any], list[Any]]] = {
    "gaussian_noise": (
        gaussian_noise,
        [0.04, 0.06, 0.08, 0.09, 0.10],
        [0.08, 0.12, 0.18, 0.26, 0.38],
    ),
    "shot_noise": (shot_noise, [500, 250, 100, 75, 50], [60, 25, 12, 5, 3]),
    "impulse_noise": (
        impulse_noise,
        [0.01, 0.02, 0.03, 0.05, 0.07],
        [0.03, 0.06, 0.09, 0.17, 0.27],
    ),
    "defocus_blur": (
        defocus_blur,
        [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)],
        [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)],
    ),
    "contrast": (contrast, [0.75, 0.5, 0.4, 0.3, 0.15], [0.4, 0.3, 0.2, 0.1, 0.05]),
    "gaussian_blur": (gaussian_blur, [0.4, 0.6, 0.7, 0.8, 1], [1, 2, 3, 4, 6]),
}


def test_every_corruption_has_a_second_implementation() -> None:
    assert {*SLOW} == {*NAMES}


@pytest.mark.parametrize("severity", SEVERITIES)
@sizes
@every
def test_equals_the_generators(name: str, size: int, severity: int) -> None:
    x, index = images(2, size), torch.tensor([4, 900])
    found = corrupt(x, name, severity, seed=SEED, index=index)
    slow, small, large = SLOW[name]
    constant = (small if size <= 64 else large)[severity - 1]
    for row, own, sample in zip(found, x, index.tolist(), strict=True):
        image = own.double().mul(255).round().div(255).permute(1, 2, 0).numpy()
        wanted = slow(image, constant, name, severity, sample).clip(0, 1) * 255
        apart = row.double().mul(255).round().permute(1, 2, 0).numpy() - wanted
        assert float(np.abs(apart).max()) <= 0.5 + 1e-6


@sizes
@every
def test_images_change_more_from_severity_to_severity(name: str, size: int) -> None:
    x, index = images(8, size), torch.arange(8)
    changes = [
        float((corrupt(x, name, s, seed=0, index=index) - x).abs().mean())
        for s in SEVERITIES
    ]
    assert all(a < b for a, b in pairwise([0.0, *changes]))


@settings(deadline=None, max_examples=30)
@given(
    name=st.sampled_from(NAMES),
    severity=st.sampled_from(SEVERITIES),
    order=st.permutations(range(5)),
    cut=st.integers(1, 4),
    size=st.sampled_from([5, 8, 24]),
)
def test_a_sample_is_the_same_in_any_batch(
    name: str, severity: int, order: list[int], cut: int, size: int
) -> None:
    """To the last bit, and multiples of 1/255 as a file's pixels are."""
    generator = torch.Generator().manual_seed(size)
    x = torch.rand(5, 3, size, size, generator=generator)
    index = torch.tensor([7, 0, 123_456_789, 31, 8])
    whole = corrupt(x, name, severity, seed=1, index=index)
    rows = torch.tensor(order)
    parts = [
        corrupt(x[part], name, severity, seed=1, index=index[part])
        for part in (rows[:cut], rows[cut:])
    ]
    assert torch.equal(torch.cat(parts), whole[rows])
    levels = whole.mul(255).round()
    assert torch.equal(whole, levels / 255)
    assert 0 <= float(levels.min()) <= float(levels.max()) <= 255
    assert whole.shape == x.shape
    assert whole.dtype == x.dtype


@pytest.mark.parametrize("name", NOISES)
def test_draws_belong_to_sample_severity_and_seed(name: str) -> None:
    x, both = images(1, 32).expand(2, -1, -1, -1), torch.tensor([0, 1])
    one, other = corrupt(x, name, 5, seed=0, index=both)
    assert not torch.equal(one, other)
    again = corrupt(x, name, 5, seed=1, index=both)[0]
    assert not torch.equal(one, again)
    milder = corrupt(x, name, 4, seed=0, index=both)[0]
    moved, less = one != x[0], milder != x[0]
    assert bool((less & ~moved).any()), "the milder one's pixels are among the other's"


@pytest.mark.parametrize("name", [name for name in NAMES if name not in NOISES])
def test_without_noise_there_are_no_draws(name: str) -> None:
    x = images(1, 32).expand(2, -1, -1, -1)
    one, other = corrupt(x, name, 3, seed=0, index=torch.tensor([0, 1]))
    assert torch.equal(one, other)


@pytest.mark.parametrize("severity", [1, 5])
@pytest.mark.parametrize("grey", [0.25, 0.5])
def test_noise_has_the_mean_and_spread_that_it_says(grey: float, severity: int) -> None:
    """Of half a million draws."""
    x = torch.full((40, 3, 64, 64), round(255 * grey) / 255)
    index = torch.arange(40)

    def noise(name: str) -> tuple[Tensor, Any]:
        found = corrupt(x, name, severity, seed=5, index=index)
        return (found - x).double(), SLOW[name][1][severity - 1]

    if grey == 0.5:  # nearer to black, values would be cut off
        normal, std = noise("gaussian_noise")
        assert abs(float(normal.mean())) < 5 * std / 700
        assert float(normal.std()) == pytest.approx(std, rel=0.01)
        assert float((normal / std).pow(4).mean()) == pytest.approx(3, rel=0.03)
    shot, rate = noise("shot_noise")
    assert abs(float(shot.mean())) < 0.001
    # Where counts and levels are nearly as many, rounding adds to the spread.
    assert float(shot.var()) == pytest.approx(float(x.mean()) / rate, rel=0.03)
    impulse, amount = noise("impulse_noise")
    values = impulse + x
    assert float((values < 1e-6).double().mean()) == pytest.approx(amount / 2, rel=0.05)
    assert float((values > 0.999).double().mean()) == pytest.approx(
        amount / 2, rel=0.05
    )


@every
def test_a_black_and_a_white_image_come_through(name: str) -> None:
    """Nothing but noise changes an image of one colour, and all stays in [0, 1]."""
    for value in (0.0, 1.0):
        x = torch.full((1, 3, 32, 32), value)
        found = corrupt(x, name, 5, seed=0, index=torch.tensor([0]))
        if name in ("defocus_blur", "gaussian_blur", "contrast"):
            assert torch.equal(found, x)
        assert bool(((found >= 0) & (found <= 1)).all())
    if name == "shot_noise":  # no light, no photons
        dark = torch.zeros(1, 3, 32, 32)
        assert torch.equal(
            corrupt(dark, name, 5, seed=0, index=torch.tensor([0])), dark
        )


@every
def test_the_global_generator_is_left_alone(name: str) -> None:
    before = torch.random.get_rng_state()
    x = images(2, 16)
    corrupt(x, name, 3, seed=0, index=torch.arange(2))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(x, images(2, 16))


@pytest.mark.parametrize(
    ("name", "severity", "message"),
    [
        (
            "snow_globe",
            1,
            "there is no corruption 'snow_globe'; choose gaussian_noise|",
        ),
        ("contrast", 0, "corruption contrast has severities 1 to 5, not 0; choose one"),
        ("contrast", 6, "corruption contrast has severities 1 to 5, not 6; choose one"),
    ],
)
def test_what_there_is_not_is_refused_in_one_line(
    name: str, severity: int, message: str
) -> None:
    with pytest.raises(UserError) as told:
        check_corruption(name, severity)
    assert str(told.value).startswith(message)
    assert "\n" not in str(told.value)
    with pytest.raises(UserError):
        corrupt(images(1, 8), name, severity, seed=0, index=torch.tensor([0]))
