"""What holds for every attack."""

import pytest
import torch
from torch import nn

from rrl_dist.attacks import L2, Ball, Linf
from rrl_dist.attacks.margins import cross_entropy
from tests.attacks.kinds import (
    Data,
    Kind,
    apgd,
    drawing,
    every_ball,
    every_kind,
    fooling,
    pgd,
)


@fooling
@every_ball
def test_result_is_in_the_ball_and_stronger(
    kind: Kind, ball: Ball, model: nn.Module, unseen: Data
) -> None:
    x, y = unseen
    attacked = kind(ball).run(model, x, y)
    assert attacked.x_adv.shape == x.shape
    assert not attacked.x_adv.requires_grad
    distance = ball.distance(attacked.x_adv.double(), x.double())
    assert (distance <= ball.eps * (1 + 1e-6)).all()
    assert attacked.x_adv.min() >= 0
    assert attacked.x_adv.max() <= 1
    right = model(x).argmax(1) == y
    still = model(attacked.x_adv).argmax(1) == y
    assert not (still & ~right).any()
    assert still.sum() < right.sum() - 40


@every_kind
@every_ball
def test_radius_zero_is_the_identity_without_a_model(
    kind: Kind, ball: Ball, unseen: Data
) -> None:
    x, y = unseen
    attacked = kind(ball.with_eps(0.0)).run(nn.Identity(), x, y)
    assert torch.equal(attacked.x_adv, x)
    assert attacked.x_adv is not x
    assert not attacked.queries.any()


@every_kind
@every_ball
@pytest.mark.parametrize("batch", [1, 7, 64])
def test_batch_size_changes_no_bit(
    kind: Kind, ball: Ball, batch: int, model: nn.Module, unseen: Data
) -> None:
    x, y = (column[:100] for column in unseen)
    whole = kind(ball).run(model, x, y)
    rows = torch.arange(20 if batch == 1 else 100).split(batch)
    parts = [kind(ball).run(model, x[r], y[r], r) for r in rows]
    count = sum(len(r) for r in rows)
    assert torch.equal(torch.cat([p.x_adv for p in parts]), whole.x_adv[:count])
    assert torch.equal(torch.cat([p.queries for p in parts]), whole.queries[:count])


@every_kind
@every_ball
def test_order_changes_no_bit(
    kind: Kind, ball: Ball, model: nn.Module, unseen: Data
) -> None:
    x, y = (column[:100] for column in unseen)
    whole = kind(ball)(model, x, y)
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))
    assert torch.equal(kind(ball)(model, x[order], y[order], order), whole[order])


@pytest.mark.parametrize(("kind", "ball"), [(pgd, Linf(0.1)), (apgd, L2(0.5))])
def test_thread_count_changes_no_bit(
    kind: Kind, ball: Ball, model: nn.Module, unseen: Data
) -> None:
    x, y = (column[:64] for column in unseen)
    before = torch.get_num_threads()
    try:
        results = []
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(kind(ball)(model, x, y))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*results)


@every_kind
def test_memory_layout_changes_no_bit(
    kind: Kind, model: nn.Sequential, digits: Data
) -> None:
    colours = type(model)(nn.Conv2d(3, 1, 1), *model).eval()
    x = torch.rand(70, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    y = digits[1][:70]
    whole = kind(Linf(0.1))(colours, x, y)
    channels_last = x.to(memory_format=torch.channels_last)
    strided = x.transpose(2, 3).contiguous().transpose(2, 3)
    shifted = torch.cat([torch.zeros(1), x.flatten()])[1:].reshape(x.shape)
    for same in (channels_last, strided, shifted):
        assert torch.equal(kind(Linf(0.1))(colours, same, y), whole)


@drawing
def test_draws_depend_on_seed_and_index(
    kind: Kind, model: nn.Module, unseen: Data
) -> None:
    x, y = (column[:30] for column in unseen)
    first = kind(L2(0.1))(model, x, y)
    right = model(x).argmax(1) == y
    other_seed = kind(L2(0.1), seed=1)(model, x, y)
    other_index = kind(L2(0.1))(model, x, y, torch.arange(30) + 1000)
    for other in (other_seed, other_index):
        changed = (other != first).flatten(1).any(1)
        assert changed[right].float().mean() > 0.9
    assert torch.equal(kind(L2(0.1))(model, x, y), first)


@fooling
@every_ball
def test_a_larger_ball_is_a_stronger_attack(
    kind: Kind, ball: Ball, model: nn.Module, unseen: Data
) -> None:
    x, y = unseen
    values, accuracies = [], []
    for share in (0.0, 0.25, 0.5, 1.0, 1.5):
        attack = kind(ball.with_eps(share * ball.eps))
        logits = model(attack(model, x, y))
        values.append(cross_entropy(logits, y).mean().item())
        accuracies.append((logits.argmax(1) == y).float().mean().item())
    assert accuracies == sorted(accuracies, reverse=True)
    if kind is pgd:  # the others stop at the first wrong image, or at the nearest
        assert values == sorted(values)


@every_kind
@every_ball
def test_empty_batch(kind: Kind, ball: Ball, model: nn.Module) -> None:
    attacked = kind(ball).run(
        model, torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.int64)
    )
    assert attacked.x_adv.shape == (0, 1, 8, 8)
    assert attacked.queries.shape == (0,)


@fooling
def test_images_that_are_wrong_already_stay_wrong(
    kind: Kind, model: nn.Module, unseen: Data
) -> None:
    x = unseen[0][:9]
    y = (model(x).argmax(1) + 1) % 10
    x_adv = kind(Linf(0.1))(model, x, y)
    logits = model(x_adv)
    assert (logits.argmax(1) != y).all()
    assert (cross_entropy(logits, y) >= cross_entropy(model(x), y) - 1e-5).all()


@fooling
@every_ball
def test_model_of_one_class_cannot_be_fooled(kind: Kind, ball: Ball) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 1))
    x = torch.rand(5, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    x_adv = kind(ball)(model, x, torch.zeros(5, dtype=torch.int64))
    assert x_adv.isfinite().all()
    assert (ball.distance(x_adv, x) <= ball.eps * (1 + 1e-6)).all()
