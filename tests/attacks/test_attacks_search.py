import math
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrl_dist.attacks import L2, PGD, Ball, Linf, Search
from rrl_dist.core.errors import UserError
from rrl_dist.core.randomness import normal, uniform

Data = tuple[Tensor, Tensor]
SIZE = 16
SETTINGS = {
    "steps": 40,
    "relative_start": 0.25,
    "change": 0.05,
    "seed": 7,
    "micro_batch": SIZE,
}


def linear(classes: int, pixels: int) -> nn.Sequential:
    """Its distances to the boundary are known."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes))
    generator = torch.Generator().manual_seed(1)
    nn.init.normal_(model[1].weight, generator=generator)
    nn.init.zeros_(model[1].bias)
    return model


@pytest.mark.parametrize("classes", [2, 5])
def test_finds_the_distance_of_a_linear_model(classes: int) -> None:
    model = linear(classes, 64)
    generator = torch.Generator().manual_seed(0)
    # Far from black and white, which would keep an image from the nearest wrong one.
    x = 0.5 + 0.05 * torch.randn(40, 1, 8, 8, generator=generator)
    logits = model(x)
    y = logits.argmax(1)
    weight = model[1].weight
    exact = torch.stack(
        [
            min(
                (logits[i, y[i]] - logits[i, k]) / (weight[y[i]] - weight[k]).norm()
                for k in range(classes)
                if k != y[i]
            )
            for i in range(40)
        ]
    )
    ball = L2(2.0)
    x_adv = Search(ball=ball, **{**SETTINGS, "steps": 100})(model, x, y)
    found = ball.distance(x_adv, x)
    assert (model(x_adv).argmax(1) != y).all()
    assert (found >= exact * (1 - 1e-4) - 1e-6).all()
    assert found.mean() <= 1.02 * exact.mean()
    assert (found / exact).median() <= 1.01


def test_what_is_wrong_is_its_own_nearest(model: nn.Module, unseen: Data) -> None:
    x = unseen[0][:20]
    y = (model(x).argmax(1) + 1) % 10
    assert torch.equal(Search(ball=L2(1.0), **SETTINGS)(model, x, y), x)


def test_what_cannot_be_broken_comes_back_right() -> None:
    """By 16 pixels of weight 1, at 0.02 from 0.6, the sum moves by 0.08."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        model[1].weight.copy_(torch.stack([torch.ones(16), torch.zeros(16)]))
        model[1].bias.copy_(torch.tensor([-8.0, 0.0]))
    x = torch.full((5, 1, 4, 4), 0.6)
    y = torch.zeros(5, dtype=torch.int64)
    near, far = L2(0.35), L2(0.45)  # the boundary is at 0.4
    x_adv = Search(ball=near, **SETTINGS)(model, x, y)
    assert (model(x_adv).argmax(1) == y).all()
    assert (near.distance(x_adv, x) <= 0.35 * (1 + 1e-6)).all()
    # It is the strongest image seen, at the ball's edge.
    torch.testing.assert_close(
        model(x_adv)[:, 0], torch.full((5,), 0.2), atol=0.02, rtol=0
    )
    found = far.distance(Search(ball=far, **SETTINGS)(model, x, y), x)
    assert ((found >= 0.4 - 1e-5) & (found <= 0.45)).all()


def literal_search(model: nn.Module, ball: L2, x: Tensor, y: int, i: int) -> Tensor:
    """One sample [1, ...]; all wrong images are kept, the nearest is taken."""
    steps = SETTINGS["steps"]
    z = normal(7, "search40", "direction", index=torch.tensor([i]), n=x.numel())
    u = uniform(7, "search40", "radius", index=torch.tensor([i]), n=1).item()
    radius = first = 0.25 * ball.eps
    size = first * u ** (1 / x.numel())
    point = (x + size * z.reshape(x.shape) / z.norm()).clamp(0, 1)
    wrong = [x] if model(x).argmax() != y else []
    for step in range(steps + 1):
        point = point.detach().requires_grad_()
        logits = model(point)
        others = torch.cat([logits[:, :y], logits[:, y + 1 :]], 1)
        (grad,) = torch.autograd.grad(others.max() - logits[0, y], point)
        if logits.argmax() != y:
            wrong.append(point.detach())
            radius = 0.95 * float((point.detach() - x).norm())
        else:
            radius = min(1.05 * radius, ball.eps)
        length = first * (0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2)
        delta = point.detach() + length * grad / grad.norm() - x
        point = (x + radius * delta / delta.norm()).clamp(0, 1)
    return min(wrong, key=lambda image: float((image - x).norm()))


def test_equals_a_literal_loop_over_samples(model: nn.Module, unseen: Data) -> None:
    x, y = (column[:12] for column in unseen)
    index, ball = torch.arange(12) * 3 + 5, L2(3.0)
    x_adv = Search(ball=ball, **SETTINGS)(model, x, y, index)
    for i in range(12):
        expected = literal_search(model, ball, x[[i]], int(y[i]), int(index[i]))
        # Another rounding may call an image at the boundary right.
        near, far = (float((a - x[[i]]).norm()) for a in (x_adv[[i]], expected))
        assert near == pytest.approx(far, rel=0.03)


def test_nearer_than_any_radius_at_which_pgd_succeeds(
    model: nn.Module, unseen: Data
) -> None:
    """A grid of radii is the slow way to the same, from above."""
    x, y = (column[:64] for column in unseen)
    settings = {**SETTINGS, "micro_batch": 64, "steps": 60}
    x_adv = Search(ball=L2(3.0), **settings)(model, x, y)
    found = L2(3.0).distance(x_adv, x)
    grid = torch.full((64,), 3.0)
    for radius in (1.6, 1.4, 1.2, 1.0, 0.8, 0.6, 0.4, 0.2):
        pgd = PGD(
            ball=L2(radius),
            steps=20,
            relative_step=0.125,
            restarts=1,
            random_start=True,
            seed=0,
            micro_batch=64,
        )
        wrong = model(pgd(model, x, y)).argmax(1) != y
        grid = torch.where(wrong, torch.full_like(grid, radius), grid)
    assert (found <= grid).float().mean() > 0.9
    assert found.mean() < grid.mean()


class Scaled(nn.Module):
    """The same decisions, so sure that the cross-entropy has no gradient in float32."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return 2.0**12 * cast(Tensor, self.model(x))


def test_a_sure_model_looks_no_more_robust(model: nn.Module, unseen: Data) -> None:
    x, y = (column[:32] for column in unseen)
    sure = Scaled(model)
    point = x.clone().requires_grad_()
    loss = F.cross_entropy(sure(point), y, reduction="sum")
    (grad,) = torch.autograd.grad(loss, point)
    assert (grad.flatten(1).norm(dim=1) == 0).float().mean() > 0.5
    ball = L2(3.0)
    plain, scaled = (Search(ball=ball, **SETTINGS)(m, x, y) for m in (model, sure))
    torch.testing.assert_close(scaled, plain)


class Sure(nn.Module):
    """Flat, and so without a gradient, except beyond 0.6."""

    def forward(self, x: Tensor) -> Tensor:
        score = 1e4 * (0.6 - x.flatten(1).amax(1)).clamp(-1, 1)
        return torch.stack([score, torch.zeros_like(score)], 1)


def test_a_flat_place_is_left_by_the_random_start() -> None:
    x = torch.full((8, 1, 4, 4), 0.5)
    y = torch.zeros(8, dtype=torch.int64)
    x_adv = Search(ball=L2(1.0), **SETTINGS)(Sure(), x, y)
    assert (Sure()(x_adv).argmax(1) != y).all()


@pytest.mark.parametrize("ball", [Linf(0.3), L2(3.0)], ids=Ball.label)
def test_distances_are_of_the_balls_norm(
    ball: Ball, model: nn.Module, unseen: Data
) -> None:
    x, y = (column[:32] for column in unseen)
    x_adv = Search(ball=ball, **SETTINGS)(model, x, y)
    broken = model(x_adv).argmax(1) != y
    assert broken.all()
    found = ball.distance(x_adv, x)
    assert (found <= ball.eps * (1 + 1e-6)).all()
    assert found.mean() < 0.7 * ball.eps


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"steps": 0}, "steps=0"),
        ({"micro_batch": 0}, "micro_batch=0"),
        ({"relative_start": 0.0}, "relative_start=0.0"),
        ({"relative_start": 1.5}, "relative_start=1.5"),
        ({"change": 1.0}, "change=1.0"),
        ({"change": math.nan}, "change=nan"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, float], found: str) -> None:
    with pytest.raises(UserError, match=found):
        Search(ball=L2(0.1), **{**SETTINGS, **change})


def test_name_tells_the_steps() -> None:
    assert Search(ball=L2(0.1), **SETTINGS).name == "search40"
