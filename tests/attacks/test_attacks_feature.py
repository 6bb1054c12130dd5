import math

import pytest
import torch
from torch import Tensor, nn

from rrl_dist.attacks import L2, PGD, Ball, FeatureAttack, Linf
from rrl_dist.core.errors import UserError
from rrl_dist.core.randomness import normal, uniform

Data = tuple[Tensor, Tensor]
SIZE = 16
SETTINGS = {
    "steps": 4,
    "relative_step": 0.3,
    "restarts": 2,
    "seed": 7,
    "micro_batch": SIZE,
}
every_ball = pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5)], ids=Ball.label)


def displacement(model: nn.Sequential, x_adv: Tensor, x: Tensor) -> Tensor:
    with torch.no_grad():
        return (model[:-1](x_adv) - model[:-1](x)).norm(dim=1)


def literal_start(ball: Ball, x: Tensor, i: int, restart: int) -> Tensor:
    index, pixels = torch.tensor([i]), x.numel()
    key = ("feature4", restart)
    if isinstance(ball, Linf):
        u = uniform(7, *key, index=index, n=pixels)
        return x + ball.eps * (2 * u - 1).reshape(x.shape)
    z = normal(7, *key, "direction", index=index, n=pixels).reshape(x.shape)
    u = uniform(7, *key, "radius", index=index, n=1).item()
    return x + ball.eps * u ** (1 / pixels) * z / z.norm()


def literal_projection(ball: Ball, x: Tensor, center: Tensor) -> Tensor:
    delta = x - center
    if isinstance(ball, Linf):
        delta = delta.clamp(-ball.eps, ball.eps)
    elif delta.norm() > ball.eps:
        delta = delta * ball.eps / delta.norm()
    return torch.clamp(center + delta, 0, 1)


def literal_attack(model: nn.Sequential, ball: Ball, x: Tensor, i: int) -> Tensor:
    """One sample [1, ...], one iterate after the other, everything kept and sorted."""

    def features(point: Tensor) -> Tensor:
        return model[:-1](point.expand(SIZE, *point.shape[1:]))[0]

    def moved(point: Tensor) -> Tensor:
        return (features(point) - features(x).detach()).square().sum().sqrt()

    visited: list[Tensor] = [x]
    for restart in range(2):
        point = literal_projection(ball, literal_start(ball, x, i, restart), x)
        visited.append(point)
        for _ in range(4):
            point = point.clone().requires_grad_()
            (grad,) = torch.autograd.grad(moved(point), point)
            unit = grad.sign() if isinstance(ball, Linf) else grad / grad.norm()
            point = point.detach() + 0.3 * ball.eps * unit
            point = literal_projection(ball, point, x)
            visited.append(point)
    return max(visited, key=lambda point: float(moved(point).detach()))


@every_ball
def test_equals_a_literal_loop_over_samples(
    ball: Ball, model: nn.Sequential, unseen: Data
) -> None:
    x, y = (column[:24] for column in unseen)
    index = torch.arange(24) * 3 + 5
    x_adv = FeatureAttack(ball=ball, **SETTINGS)(model, x, y, index)
    literal = [literal_attack(model, ball, x[[i]], int(index[i])) for i in range(24)]
    torch.testing.assert_close(x_adv, torch.cat(literal), rtol=0, atol=2e-5)


@every_ball
def test_moves_features_further_than_pgd_and_than_noise(
    ball: Ball, model: nn.Sequential, unseen: Data
) -> None:
    x, y = (column[:64] for column in unseen)
    settings = {**SETTINGS, "micro_batch": 64, "steps": 10, "relative_step": 0.25}
    mine = FeatureAttack(ball=ball, **settings)(model, x, y)
    assert (ball.distance(mine, x) <= ball.eps * (1 + 1e-6)).all()
    pgd = PGD(ball=ball, random_start=True, **settings)(model, x, y)
    noise = ball.surface_start(x, seed=0, key=("noise",), index=torch.arange(64))
    far = displacement(model, mine, x)
    for other in (pgd, noise):
        less = displacement(model, other, x)
        assert less.mean() < 0.95 * far.mean()
        assert (less < far).float().mean() > 0.8


def test_labels_and_head_do_not_matter(model: nn.Sequential, unseen: Data) -> None:
    x, y = (column[:20] for column in unseen)
    attack = FeatureAttack(ball=Linf(0.1), **SETTINGS)
    x_adv = attack(model, x, y)
    with torch.no_grad():
        model[-1].weight.neg_()
    assert torch.equal(attack(model, x, (y + 3) % 10), x_adv)


def test_more_restarts_only_help(model: nn.Sequential, unseen: Data) -> None:
    x, y = (column[:64] for column in unseen)
    far = []
    for restarts in (1, 3):
        settings = {**SETTINGS, "restarts": restarts}
        x_adv = FeatureAttack(ball=Linf(0.1), **settings)(model, x, y)
        far.append(displacement(model, x_adv, x))
    assert (far[1] >= far[0] - 1e-5).all()
    assert (far[1] > far[0] + 1e-5).any()


def test_features_that_do_not_move_leave_the_clean_image() -> None:
    model = nn.Module()
    model.encoder = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    nn.init.zeros_(model.encoder[1].weight)
    x = torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    y = torch.zeros(5, dtype=torch.int64)
    assert torch.equal(FeatureAttack(ball=Linf(0.1), **SETTINGS)(model, x, y), x)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"steps": 0}, "steps=0"),
        ({"restarts": 0}, "restarts=0"),
        ({"micro_batch": 0}, "micro_batch=0"),
        ({"relative_step": 0.0}, "relative_step=0.0"),
        ({"relative_step": math.nan}, "relative_step=nan"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, float], found: str) -> None:
    with pytest.raises(UserError, match=found):
        FeatureAttack(ball=Linf(0.1), **{**SETTINGS, **change})


def test_name_tells_the_steps() -> None:
    assert FeatureAttack(ball=Linf(0.1), **SETTINGS).name == "feature4"
