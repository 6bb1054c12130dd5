"""What critics find in encoders whose information is known beforehand."""

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rrl_dist.attacks.balls import L2, Ball, Linf
from rrl_dist.data.datasets import ImageSet
from rrl_dist.evaluate.information import estimates
from rrl_dist.evaluate.vulnerability import vulnerability
from rrl_dist.training.build import build
from tests.composing import compose, tiny_encoder
from tests.evaluate.jobs import QUICK, quick

CPU = torch.device("cpu")


def framed(split: str) -> ImageSet:
    """Digits of 8 x 8 px in a black frame of 2 px."""
    images = build(compose("pretrain", "data=digits", "data.size=8")["data"])
    found: ImageSet = images.split(split)
    assert isinstance(found.images, np.ndarray)
    wide = np.pad(found.images, ((0, 0), (2, 2), (2, 2), (0, 0)))
    return ImageSet("framed", wide, found.labels, found.index, found.classes)


@pytest.fixture(scope="module")
def sets() -> tuple[ImageSet, ImageSet]:
    test = framed("test")
    return framed("train"), test.select(np.arange(96))


def asked(
    encoder: nn.Module, sets: tuple[ImageSet, ImageSet], ball: Ball | None, **other: Any
) -> list[float]:
    settings = {"estimation": QUICK, "seed": 0, "device": CPU, **other}
    return estimates(encoder, *sets, ball=ball, **settings)


class Quadrants(nn.Module):
    """Mean brightness of the four quarters of the digit, and `gain` times what is seen
    in the frame, which is black in every clean image."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean(1)[:, 2:-2, 2:-2].unfold(1, 4, 4).unfold(2, 4, 4)
        frame = x.mean(1)[:, 0, :].unfold(1, 3, 3).mean(2)
        return 10 * means.mean((3, 4)).flatten(1) + self.gain * frame


class Constant(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.ones(len(x), 4) + 0 * x.mean((1, 2, 3))[:, None]


@pytest.mark.parametrize("estimator", ["dv", "nce"])
def test_features_that_tell_nothing_have_no_information(
    sets: tuple[ImageSet, ImageSet], estimator: str
) -> None:
    way = quick(estimator=estimator)
    nothing = asked(Constant(), sets, None, estimation=way)
    something = asked(Quadrants(0), sets, None, estimation=way)
    assert len(nothing) == len(something) == 96 // 16
    assert nothing == pytest.approx([0] * 6, abs=0.02)
    assert statistics.mean(something) > 0.3


def test_a_brittle_encoder_is_more_vulnerable(
    sets: tuple[ImageSet, ImageSet],
) -> None:
    """Both say the same of every clean image; one can be led by its black frame."""
    robust, brittle = (
        vulnerability(
            Quadrants(gain),
            *sets,
            estimation=QUICK,
            ball=Linf(0.02),
            seed=0,
            device=CPU,
        )
        for gain in (0.0, 200.0)
    )
    assert brittle["normal"] == robust["normal"]
    assert brittle["vulnerability"]["low"] > robust["vulnerability"]["high"]
    lost = robust["vulnerability"]["value"]
    assert 0 < lost < robust["normal"]["value"]
    high, low = (found["adversarial_risk"]["value"] for found in (brittle, robust))
    assert high >= low


def test_at_radius_0_nothing_is_lost(sets: tuple[ImageSet, ImageSet]) -> None:
    way = quick(steps=5)
    for ball in (Linf(0.0), L2(0.0)):
        found = vulnerability(
            Quadrants(1), *sets, estimation=way, ball=ball, seed=3, device=CPU
        )
        assert found["normal"] == found["worst"]
        assert found["vulnerability"]["value"] == 0
        assert found["vulnerability"]["std_error"] == 0
    clean, attacked = (
        asked(Quadrants(1), sets, ball, estimation=way) for ball in (None, Linf(1e-6))
    )
    assert clean != attacked
    assert clean == pytest.approx(attacked, abs=1e-2)


class Spy(nn.Module):
    """Notes how far each image that it is shown is from the nearest of the set."""

    def __init__(self, sets: tuple[ImageSet, ImageSet], distance: Callable) -> None:
        super().__init__()
        self.inside, self.distance = tiny_encoder(), distance
        pixels = np.concatenate([np.asarray(each.images) for each in sets])
        self.known = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
        self.far: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        assert 0 <= float(x.detach().min()) <= float(x.detach().max()) <= 1
        gaps = [self.distance(self.known - image).min() for image in x.detach()]
        self.far.extend(float(gap) for gap in gaps)
        return self.inside(x)


@pytest.mark.parametrize(
    ("ball", "distance"),
    [
        (Linf(0.03), lambda gap: gap.abs().flatten(1).amax(1)),
        (L2(0.4), lambda gap: gap.flatten(1).norm(dim=1)),
    ],
)
def test_the_encoder_is_shown_images_of_the_ball_and_left_as_it_was(
    sets: tuple[ImageSet, ImageSet], ball: Ball, distance: Callable
) -> None:
    few = sets[0].select(range(48)), sets[1].select(range(32))
    spy = Spy(few, distance)
    spy.train()
    before = {name: value.clone() for name, value in spy.state_dict().items()}
    asked(spy, few, ball, estimation=quick(steps=3))
    assert max(spy.far) <= ball.eps * (1 + 1e-5)
    assert max(spy.far) > 0.9 * ball.eps
    assert all(module.training for module in spy.modules())
    assert all(p.requires_grad and p.grad is None for p in spy.parameters())
    for name, value in spy.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_held_out_batches_are_asked_and_never_fitted(
    sets: tuple[ImageSet, ImageSet],
) -> None:
    """Whole batches only, each image once, and no test image while critics learn."""
    shown: list[Tensor] = []

    class Noting(Quadrants):
        def forward(self, x: Tensor) -> Tensor:
            shown.append(x.detach().clone())
            return super().forward(x)

    train, test = sets
    way = quick(steps=4)
    found = asked(Noting(0), (train, test.select(range(40))), None, estimation=way)
    assert len(found) == 2
    held_out = torch.from_numpy(np.asarray(test.images)).permute(0, 3, 1, 2) / 255
    of_test = [
        [int((held_out == image).flatten(1).all(1).any()) for image in batch]
        for batch in shown
    ]
    assert [sum(flags) for flags in of_test] == [0] * (1 + 4 + 16) + [16] * 2
    assert len(torch.cat(shown[-2:]).unique(dim=0)) == 32


def test_nothing_else_changes_an_estimate(sets: tuple[ImageSet, ImageSet]) -> None:
    way, ball = quick(steps=4), Linf(0.05)
    torch.manual_seed(1)
    once = asked(Quadrants(1), sets, ball, estimation=way)
    state = torch.manual_seed(2).get_state()
    assert asked(Quadrants(1), sets, ball, estimation=way) == once
    assert torch.equal(torch.get_rng_state(), state)
    assert asked(Quadrants(1), sets, ball, estimation=way, seed=1) != once


@pytest.mark.parametrize("model", ["tiny_cnn", "vit_tiny"])
def test_any_encoder_has_it(model: str) -> None:
    config = compose("pretrain", f"model={model}", "data=digits")
    encoder = build({**config["model"]})
    split = build(config["data"]).split
    sets = split("train").select(range(8)), split("test").select(range(8))
    way = quick(batch_size=4, steps=1, attack_steps=1)
    found = vulnerability(
        encoder, *sets, estimation=way, ball=Linf(0.05), seed=0, device=CPU
    )
    assert found["batches"] == 2
