from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rrl_dist.core.errors import UserError
from rrl_dist.data.corruptions import (
    SEVERITIES,
    check_corruption,
    corrupt,
    corruption_names,
    found_kinds,
)
from tests.data.published_constants import SLOW, slow_corruption
from tests.data.slow_corruptions import SEED

NAMES = corruption_names()
NOISES = ("gaussian_noise", "shot_noise", "impulse_noise")
# Of each image's own draws; the others are functions of the image alone.
DRAWN = {
    *NOISES,
    "speckle_noise",
    "glass_blur",
    "motion_blur",
    "snow",
    "frost",
    "fog",
    "elastic_transform",
    "spatter",
}
# Whose published constants do not make each severity change an image by more: ways of
# change differ, from severity to severity.
UNEVEN = {"glass_blur", "motion_blur", "frost", "elastic_transform", "saturate", "snow"}
UNEVEN |= {"spatter"}  # water, and mud
UNEVEN |= {"pixelate"}  # large pixels may lie on the patches of these images
LARGE = 80  # pixels: more than 64

every = pytest.mark.parametrize("name", NAMES)
sizes = pytest.mark.parametrize("size", [16, LARGE])


def images(n: int, size: int, *, seed: int = 0) -> Tensor:
    """Of 8 bits: patches of one colour, from black to white, and some noise."""
    generator = torch.Generator().manual_seed(seed)
    patches = torch.rand(n, 3, 8, 8, generator=generator)
    x = patches.repeat_interleave(size // 8, 2).repeat_interleave(size // 8, 3)
    x = 1.2 * x - 0.1 + 0.1 * torch.rand(x.shape, generator=generator)
    return x.clamp(0, 1).mul(255).round() / 255


def test_every_corruption_has_a_second_implementation() -> None:
    assert {*SLOW} == {*NAMES}


@pytest.mark.parametrize("severity", SEVERITIES)
@sizes
@every
def test_equals_the_generators(name: str, size: int, severity: int) -> None:
    if name == "spatter":
        pytest.importorskip("cv2")
    x, index = images(2, size), torch.tensor([4, 900])
    found = corrupt(x, name, severity, seed=SEED, index=index)
    for row, own, sample in zip(found, x, index.tolist(), strict=True):
        image = own.double().mul(255).round().div(255).permute(1, 2, 0).numpy()
        wanted = slow_corruption(image, name, severity, sample)
        apart = row.double().mul(255).round().permute(1, 2, 0).numpy() - wanted
        other = np.abs(apart) > 0.5 + 1e-6
        # OpenCV's means in float32 may reach a whole number, which is cut off below.
        assert float(other.mean()) <= (0.005 if name == "spatter" else 0)


@sizes
@pytest.mark.parametrize("name", [name for name in NAMES if name not in UNEVEN])
def test_images_change_more_from_severity_to_severity(name: str, size: int) -> None:
    x, index = images(8, size), torch.arange(8)
    changes = [
        float((corrupt(x, name, s, seed=0, index=index) - x).abs().mean())
        for s in SEVERITIES
    ]
    assert all(a < b for a, b in pairwise([0.0, *changes]))


@settings(deadline=None, max_examples=80)
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


@pytest.mark.parametrize("name", [name for name in NAMES if name in DRAWN])
def test_draws_belong_to_sample_severity_and_seed(name: str) -> None:
    x, both = images(1, 32).expand(2, -1, -1, -1), torch.tensor([0, 1])
    one, other = corrupt(x, name, 5, seed=0, index=both)
    assert not torch.equal(one, other)
    again = corrupt(x, name, 5, seed=1, index=both)[0]
    assert not torch.equal(one, again)
    milder = corrupt(x, name, 4, seed=0, index=both)[0]
    if name not in NOISES:
        assert not torch.equal(one, milder)
        return
    moved, less = one != x[0], milder != x[0]
    assert bool((less & ~moved).any()), "the milder one's pixels are among the other's"


@pytest.mark.parametrize("name", [name for name in NAMES if name not in DRAWN])
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


@pytest.mark.parametrize("shape", [(5, 9), (33, 20), (65, 65), (70, 131)])
@every
def test_images_of_any_size_come_through(name: str, shape: tuple[int, int]) -> None:
    """Oblong ones too: no side is written down anywhere."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(1, 3, *shape, generator=generator)
    for severity in (1, 5):
        found = corrupt(x, name, severity, seed=0, index=torch.tensor([2]))
        assert found.shape == x.shape
        assert bool(found.isfinite().all())
        assert float(found.std()) > 0.01


def test_fifteen_are_for_testing() -> None:
    groups = {name: found_kinds()[name].group for name in corruption_names("test")}
    assert [*groups.values()].count("noise") == 3
    assert [*groups.values()].count("blur") == 4
    assert [*groups.values()].count("weather") == 3
    assert [*groups.values()].count("digital") == 5
    assert {*corruption_names("validation")} == {*NAMES} - {*groups}
    places = [kind.place for kind in found_kinds().values()]
    assert len({*places}) == len(places)
