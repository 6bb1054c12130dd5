"""The attack that worst-case information is measured under, step by step."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.composing import tiny_encoder
from tests.evaluate.jobs import quick
from tests.evaluate.watching import (
    EPS,
    SIZE,
    Watched,
    clean,
    grey,
    pixels,
    silence,
    stepped,
    value,
)


def same(x: Tensor, y: Tensor) -> bool:
    """But for signs of gradients that are next to nothing."""
    return float(((x - y).abs() < 1e-6).float().mean()) > 0.99


def moved(x: Tensor, y: Tensor) -> float:
    """Part of the pixels that differ."""
    return float(((x - y).abs() > 1e-6).float().mean())


@pytest.fixture(scope="module")
def watched() -> Watched:
    return Watched(tiny_encoder())


@pytest.mark.parametrize("part", ["encoder", "local"])
def test_the_gradient_reaches_the_image_by_both_ways(part: str) -> None:
    encoder = tiny_encoder()
    if part == "encoder":
        silence(encoder)
    found = Watched(encoder, estimation=quick(steps=2), silent=part == "local")
    blind = encoder if part == "encoder" else found.ended[0]
    with torch.no_grad():
        shown = blind.eval()(pixels(grey("test")))
    assert torch.allclose(shown, shown[:1].expand_as(shown), atol=1e-6)
    for first, second, *_ in found.attacks:
        assert moved(first, second) > 0.5


def test_each_step_goes_down_the_estimate(watched: Watched) -> None:
    """The same descent written out, from the first critics and from the last."""
    half = 0.5 * EPS
    for iterates in watched.asked:
        for before, after in pairwise(iterates):
            step = stepped(watched.encoder, watched.ended, before, half, grey("test"))
            assert same(after, step)
    iterates = [*watched.attacks[0], watched.learned[0]]
    for before, after in pairwise(iterates):
        step = stepped(watched.encoder, watched.begun, before, half, grey("train"))
        assert same(after, step)


def test_an_attack_begins_at_a_random_point_of_the_ball() -> None:
    """Another one each time, of the same images too."""
    few = grey("train").select(np.arange(SIZE))
    found = Watched(tiny_encoder(), estimation=quick(steps=2), train=few)
    draws = []
    for number, (start, *_) in enumerate(found.attacks):
        images = few if number < len(found.learned) else grey("test")
        center = clean(start, images)
        gap = (start - center) / EPS
        assert 0.95 < float(gap.abs().max()) <= 1 + 1e-5
        assert float(gap.mean()) == pytest.approx(0, abs=0.1)
        assert float(gap.std()) == pytest.approx(3**-0.5, abs=0.05)
        draws.append(gap[center.flatten(1).sum(1).argsort()])
    for before, after in pairwise(draws):
        assert moved(before, after) > 0.9


def test_critics_are_fitted_and_settled_on_attacked_images(watched: Watched) -> None:
    """Each batch is the end of an attack of its own."""
    for number, x in enumerate(watched.learned):
        center, last = clean(x, grey("train")), watched.attacks[number][-1]
        assert torch.equal(center, clean(last, grey("train")))
        assert float((x - center).abs().max()) <= EPS * (1 + 1e-5)
        assert moved(x, center) > 0.9
        assert moved(x, last) > 0.5
        assert float((x - last).abs().max()) <= 0.5 * EPS + 1e-6


def reached(watched: Watched, iterates: Sequence[Tensor], step_size: float) -> Tensor:
    """Values [V] of one batch: of all iterates, and last of its clean images."""
    encoder, critics = watched.encoder, watched.ended
    last = stepped(encoder, critics, iterates[-1], step_size, grey("test"))
    images = [*iterates, last, clean(last, grey("test"))]
    with torch.no_grad():
        return torch.stack([value(encoder, critics, x) for x in images])


class Misled(nn.Module):
    """Its gradient points the other way."""

    def __init__(self) -> None:
        super().__init__()
        self.inside = tiny_encoder()

    def forward(self, x: Tensor) -> Tensor:
        features: Tensor = self.inside(2 * x.detach() - x)
        return features


@pytest.mark.parametrize(
    ("made", "relative_step", "place"),
    [(tiny_encoder, 0.5, 3), (tiny_encoder, 2.0, 1), (Misled, 0.1, 4)],
    ids=["the last", "one between", "the clean images"],
)
def test_what_is_told_is_the_lowest_value_of_all(
    made: Callable[[], nn.Module], relative_step: float, place: int
) -> None:
    """Of steps that are right, that are too long, and that go uphill."""
    way = quick(steps=6, relative_step=relative_step)
    found = Watched(made(), estimation=way, silent=made is Misled)
    values = [reached(found, each, relative_step * EPS) for each in found.asked]
    for told, all_of_them in zip(found.told, values, strict=True):
        assert told == pytest.approx(float(all_of_them.min()), abs=1e-5)
        assert all(told <= float(each) + 1e-5 for each in all_of_them)
    assert place in {int(each.argmin()) for each in values}, "it is put to no test"
