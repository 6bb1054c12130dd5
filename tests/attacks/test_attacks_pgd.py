import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrl_dist.attacks import L2, PGD, Ball, Linf
from rrl_dist.core.errors import UserError
from rrl_dist.core.randomness import normal, uniform

Data = tuple[Tensor, Tensor]
SIZE = 16
SETTINGS = {
    "steps": 4,
    "relative_step": 0.3,
    "restarts": 2,
    "random_start": True,
    "seed": 7,
    "micro_batch": SIZE,
}


def literal_start(ball: Ball, x: Tensor, i: int, restart: int) -> Tensor:
    index, pixels = torch.tensor([i]), x.numel()
    key = ("pgd4", restart)
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


def literal_pgd(model: nn.Module, ball: Ball, x: Tensor, y: int, i: int) -> Tensor:
    """One sample [1, ...], one iterate after the other, everything kept and sorted."""
    labels = torch.full((SIZE,), y)
    visited: list[Tensor] = [x]
    for restart in range(2):
        point = literal_projection(ball, literal_start(ball, x, i, restart), x)
        visited.append(point)
        for _ in range(4):
            point = point.clone().requires_grad_()
            rows = point.expand(SIZE, *point.shape[1:])
            loss = F.cross_entropy(model(rows), labels, reduction="none")[0]
            (grad,) = torch.autograd.grad(loss, point)
            unit = grad.sign() if isinstance(ball, Linf) else grad / grad.norm()
            point = point.detach() + 0.3 * ball.eps * unit
            point = literal_projection(ball, point, x)
            visited.append(point)

    def strength(point: Tensor) -> tuple[bool, float]:
        logits = model(point.expand(SIZE, *point.shape[1:])).detach()
        loss = F.cross_entropy(logits, labels, reduction="none")[0].item()
        return bool(logits[0].argmax() != y), loss

    return max(visited, key=strength)


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5)], ids=Ball.label)
def test_equals_a_literal_loop_over_samples(
    ball: Ball, model: nn.Module, unseen: Data
) -> None:
    x, y = (column[:40] for column in unseen)
    index = torch.arange(40) * 3 + 5
    x_adv = PGD(ball=ball, **SETTINGS)(model, x, y, index)
    expected = torch.cat(
        [
            literal_pgd(model, ball, x[[i]], int(y[i]), int(index[i]))
            for i in range(len(x))
        ]
    )
    torch.testing.assert_close(x_adv, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5)], ids=Ball.label)
def test_never_weaker_than_the_clean_image(
    ball: Ball, trained: nn.Module, unseen: Data
) -> None:
    """In small balls around images of low loss most steps overshoot."""
    x, y = unseen
    for share in (0.01, 1.0):
        small = ball.with_eps(share * ball.eps)
        attack = PGD(ball=small, **{**SETTINGS, "micro_batch": 64})
        clean, attacked = trained(x), trained(attack(trained, x, y))
        wrong_before, wrong = clean.argmax(1) != y, attacked.argmax(1) != y
        assert (wrong >= wrong_before).all()
        rise = F.cross_entropy(attacked, y, reduction="none") - F.cross_entropy(
            clean, y, reduction="none"
        )
        assert (rise[wrong == wrong_before] >= -1e-5).all()


class Valley(nn.Module):
    """Two classes; the loss of class 0 is highest at the clean image 0.5."""

    def forward(self, x: Tensor) -> Tensor:
        score = (x.flatten(1) - 0.5).abs().sum(1)
        return torch.stack([score, torch.zeros_like(score)], 1)


def test_clean_image_is_kept_where_it_is_the_strongest() -> None:
    x = torch.full((3, 1, 4, 4), 0.5)
    y = torch.zeros(3, dtype=torch.int64)
    assert torch.equal(PGD(ball=Linf(0.1), **SETTINGS)(Valley(), x, y), x)


class Pit(nn.Module):
    """The loss of class 0 falls off beyond x = 0.55: large steps overshoot it."""

    def forward(self, x: Tensor) -> Tensor:
        score = (x.flatten(1) - 0.55).abs().mean(1)
        return torch.stack([score, torch.full_like(score, -1.0)], 1)


def test_best_iterate_is_kept_not_the_last() -> None:
    x = torch.full((1, 1, 1, 1), 0.5)
    y = torch.zeros(1, dtype=torch.int64)
    settings = {**SETTINGS, "random_start": False, "restarts": 1, "steps": 4}
    # 0.54, then 0.58 and back: the best of the iterates is 0.54.
    attack = PGD(ball=Linf(0.1), **{**settings, "relative_step": 0.4})
    assert attack(Pit(), x, y).item() == pytest.approx(0.54)


def test_without_random_start_the_seed_does_not_matter(
    model: nn.Module, unseen: Data
) -> None:
    x, y = (column[:20] for column in unseen)
    settings = {**SETTINGS, "random_start": False, "restarts": 1}
    first = PGD(ball=Linf(0.1), **settings)(model, x, y)
    other = PGD(ball=Linf(0.1), **{**settings, "seed": 8})
    assert torch.equal(other(model, x, y, torch.arange(20) + 9), first)


def test_more_restarts_only_help(model: nn.Module, unseen: Data) -> None:
    x, y = unseen
    losses = []
    for restarts in (1, 3):
        attack = PGD(ball=Linf(0.1), **{**SETTINGS, "restarts": restarts})
        logits = model(attack(model, x, y))
        losses.append(F.cross_entropy(logits, y, reduction="none"))
    assert (losses[1] >= losses[0] - 1e-5).float().mean() > 0.98
    assert (losses[1] > losses[0] + 1e-5).any()


def test_logits_of_lower_precision_are_raised_in_float32(
    model: nn.Module, unseen: Data
) -> None:
    x, y = (column[:20] for column in unseen)

    class Half(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = model(x)
            return logits.bfloat16()

    x_adv = PGD(ball=Linf(0.1), **SETTINGS)(Half(), x, y)
    assert x_adv.dtype == torch.float32
    assert (model(x_adv).argmax(1) == y).sum() < (model(x).argmax(1) == y).sum()


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"steps": 0}, "steps=0"),
        ({"restarts": -1}, "restarts=-1"),
        ({"micro_batch": 0}, "micro_batch=0"),
        ({"relative_step": 0.0}, "relative_step=0.0"),
        ({"relative_step": math.nan}, "relative_step=nan"),
        ({"random_start": False}, "2 restarts"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, float], found: str) -> None:
    with pytest.raises(UserError, match=found):
        PGD(ball=Linf(0.1), **{**SETTINGS, **change})


def test_name_tells_the_steps() -> None:
    assert PGD(ball=Linf(0.1), **SETTINGS).name == "pgd4"
