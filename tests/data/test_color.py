"""Each operation against torchvision's, applied sample by sample."""

import itertools

import pytest
import torch
import torchvision.transforms.v2.functional as tv
from hypothesis import given, settings
from hypothesis import strategies as st

from rrl_dist.core.randomness import uniform
from rrl_dist.data.color import (
    ColorJitter,
    Grayscale,
    Solarize,
    affine,
    channel_means,
    jitter_matrix,
)

KEY = ("test", 1)
ORDERS = [list(order) for order in itertools.permutations(range(4))]
# Written down apart from the code: NTSC's luma, I and Q.
YIQ = torch.tensor(
    [[0.299, 0.587, 0.114], [0.596, -0.274, -0.322], [0.211, -0.523, 0.312]],
    dtype=torch.float64,
)


def images(count: int, low: float = 0.0, high: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return low + (high - low) * torch.rand(count, 3, 8, 9, generator=generator)


def applied(operation, x):
    return operation(x, seed=0, key=KEY, index=torch.arange(len(x)))


def chosen(p, count):
    return uniform(0, *KEY, index=torch.arange(count), n=1)[:, 0] < p


def jittered(x, brightness, contrast, saturation, turn, order):
    """One image, fixed parameters, not clamped."""
    factors = [torch.tensor([f]).double() for f in (brightness, contrast, saturation)]
    matrix = jitter_matrix(
        channel_means(x[None]),
        factors,
        torch.tensor([turn]).double(),
        torch.tensor([order]),
    )
    return affine(x[None], matrix)[0]


def hue_literally(x, turn):
    """Turn I and Q of each pixel by `turn` circles, from Q towards I."""
    y, i, q = torch.einsum("kc,chw->khw", YIQ, x.double())
    plane = torch.complex(i, q) * torch.polar(
        torch.ones(()).double(), torch.tensor(-2 * torch.pi * turn).double()
    )
    turned = torch.stack([y, plane.real, plane.imag])
    return torch.einsum("kc,chw->khw", torch.linalg.inv(YIQ), turned).float()


def test_grayscale_equals_torchvision_for_the_chosen():
    x = images(50)
    wanted = torch.where(
        chosen(0.4, 50)[:, None, None, None], tv.rgb_to_grayscale(x, 3), x
    )
    torch.testing.assert_close(applied(Grayscale(p=0.4), x), wanted, atol=1e-6, rtol=0)


def test_solarize_equals_torchvision_for_the_chosen():
    x = images(50)
    x[:, :, 0, 0] = 0.5
    wanted = torch.where(chosen(0.4, 50)[:, None, None, None], tv.solarize(x, 0.5), x)
    assert torch.equal(applied(Solarize(p=0.4, threshold=0.5), x), wanted)


@settings(max_examples=30, deadline=None)
@given(st.floats(0.2, 1.8), st.integers(0, 23))
def test_each_of_three_alone_equals_torchvision(factor, order):
    order = ORDERS[order]
    for x in images(2, 0.3, 0.5):  # nothing leaves [0, 1], so nothing is clamped
        alone = {
            tv.adjust_brightness: (factor, 1, 1, 0.0, order),
            tv.adjust_contrast: (1, factor, 1, 0.0, order),
            tv.adjust_saturation: (1, 1, factor, 0.0, order),
        }
        for reference, parameters in alone.items():
            wanted = reference(x, factor)
            torch.testing.assert_close(
                jittered(x, *parameters), wanted, atol=1e-5, rtol=0
            )


@settings(max_examples=30, deadline=None)
@given(st.tuples(*[st.floats(0.7, 1.3)] * 3), st.floats(-0.5, 0.5), st.integers(0, 23))
def test_any_order_equals_the_four_done_one_after_another(factors, turn, order):
    order = ORDERS[order]
    for x in images(2, 0.35, 0.45):
        wanted = x
        for operation in order:
            wanted = [
                lambda y: tv.adjust_brightness(y, factors[0]),
                lambda y: tv.adjust_contrast(y, factors[1]),
                lambda y: tv.adjust_saturation(y, factors[2]),
                lambda y: hue_literally(y, turn),
            ][operation](wanted)
        found = jittered(x, *factors, turn, order)
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0)


@pytest.mark.parametrize("turn", [-1 / 3, 1 / 3])
def test_hue_turns_the_way_of_torchvision(turn):
    for channel in range(3):
        pure = torch.full((3, 2, 2), 0.2)
        pure[channel] = 0.5
        ours = jittered(pure, 1, 1, 1, turn, ORDERS[0])
        theirs = tv.adjust_hue(pure, turn)
        assert ours[:, 0, 0].argmax() == theirs[:, 0, 0].argmax()


def test_strength_zero_or_probability_zero_changes_nothing():
    x = images(10)
    off = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    full = {"brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2}
    torch.testing.assert_close(applied(ColorJitter(p=1.0, **off), x), x)
    assert torch.equal(applied(ColorJitter(p=0.0, **full), x), x)


def test_all_orders_and_the_whole_range_are_drawn():
    x = torch.full((3000, 3, 1, 1), 0.5)
    only = {"contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    y = applied(ColorJitter(brightness=0.4, p=0.8, **only), x)[:, 0, 0, 0] / 0.5
    changed = y[(y - 1).abs() > 1e-6]
    assert 0.77 < len(changed) / 3000 < 0.83
    assert 0.6 <= changed.min() < 0.61
    assert 1.39 < changed.max() <= 1.4
    order = uniform(0, *KEY, index=torch.arange(3000), n=9)[:, 4:8].argsort(dim=1)
    _, counts = torch.unique(order, dim=0, return_counts=True)
    assert len(counts) == 24
    assert counts.min() > 80


def test_channel_means_are_the_mean():
    x = images(5)
    torch.testing.assert_close(
        channel_means(x), x.double().mean(dim=(2, 3)), atol=1e-7, rtol=0
    )
