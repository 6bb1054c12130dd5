"""Margins, ascent and micro-batches."""

import pytest
import torch
from torch import Tensor, nn

from rrl_dist.attacks import L2, Ball, Linf, ascend
from rrl_dist.attacks.margins import cross_entropy, logit_margin, misclassified
from rrl_dist.attacks.micro_batches import in_micro_batches
from rrl_dist.attacks.result import Best

LOGITS = torch.tensor([[2.0, 1.0, 0.0], [2.0, 2.0, 0.0], [0.0, 5.0, 1.0]])


def test_margins_equal_their_definitions() -> None:
    y = torch.tensor([0, 1, 2])
    assert logit_margin(LOGITS, y).tolist() == [-1.0, 0.0, 4.0]
    probability = LOGITS.exp() / LOGITS.exp().sum(1, keepdim=True)
    expected = -probability[torch.arange(3), y].log()
    torch.testing.assert_close(cross_entropy(LOGITS, y), expected)


def test_first_of_tied_classes_is_the_answer() -> None:
    assert misclassified(LOGITS, torch.tensor([0, 1, 2])).tolist() == [
        False,
        True,
        True,
    ]
    assert not misclassified(LOGITS, torch.tensor([0, 0, 1])).any()


def test_nothing_fools_a_model_of_one_class() -> None:
    logits, y = torch.randn(4, 1), torch.zeros(4, dtype=torch.int64)
    assert (logit_margin(logits, y) == -torch.inf).all()
    assert not misclassified(logits, y).any()
    assert not cross_entropy(logits, y).any()


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.3)])
def test_ascent_of_a_linear_value_ends_at_the_best_point(ball: Ball) -> None:
    rng = torch.Generator().manual_seed(0)
    weight = torch.randn(5, 2, 3, generator=rng)
    center = torch.full((5, 2, 3), 0.5)
    x = ascend(
        lambda x: (weight * x).flatten(1).sum(1),
        center,
        center,
        ball=ball,
        steps=4,
        step_size=0.5 * ball.eps,
    )
    torch.testing.assert_close(x, center + ball.eps * ball.steepest(weight))


def test_ascent_takes_steps_of_the_given_length_and_number() -> None:
    center = torch.full((1, 2), 0.5)
    x = ascend(
        lambda x: x[:, 0] - x[:, 1],
        center,
        center,
        ball=Linf(0.4),
        steps=3,
        step_size=0.05,
    )
    torch.testing.assert_close(x, torch.tensor([[0.65, 0.35]]))


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.3)])
@pytest.mark.parametrize(
    "value",
    [
        lambda x: (0 * x).flatten(1).sum(1),
        lambda x: torch.ones(len(x)),
        lambda x: (x * torch.nan).flatten(1).sum(1),
        lambda x: (x - x.detach()).sqrt().flatten(1).sum(1),  # infinite gradient
    ],
)
def test_ascent_of_a_degenerate_value_gives_images(ball: Ball, value: object) -> None:
    center = torch.rand(4, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    x = ascend(value, center, center, ball=ball, steps=3, step_size=0.05)
    assert x.isfinite().all()
    assert (ball.distance(x, center) <= ball.eps * (1 + 1e-6)).all()


def test_ascent_leaves_no_gradient_and_no_graph() -> None:
    model = nn.Linear(4, 1)
    start = torch.rand(3, 4)
    with torch.no_grad():
        x = ascend(
            lambda x: model(x)[:, 0],
            start,
            start,
            ball=Linf(0.1),
            steps=2,
            step_size=0.1,
        )
    assert not torch.equal(x, start)
    assert not x.requires_grad
    assert not start.requires_grad
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 8, 11])
def test_micro_batches_have_one_shape_and_results_are_cut(count: int) -> None:
    seen: list[tuple[torch.Size, torch.Size]] = []

    def double(x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        seen.append((x.shape, index.shape))
        assert x.is_contiguous()
        return 2 * x, index + 1

    x = torch.randn(count, 3, 5).transpose(1, 2)
    doubled, after = in_micro_batches(double, x, torch.arange(count), size=4)
    assert torch.equal(doubled, 2 * x)
    assert torch.equal(after, torch.arange(count) + 1)
    assert seen == [((4, 5, 3), (4,))] * max(1, -(-count // 4))


def test_a_wrong_image_is_kept_before_a_higher_value() -> None:
    old = Best.of(
        torch.zeros(7, 1),
        torch.tensor([2.0, 2.0, 1.0, 1.0, torch.nan, 1.0, torch.nan]),
        torch.tensor([False, True, False, True, False, True, False]),
    )
    new = old.offer(
        torch.ones(7, 1),
        torch.tensor([1.0, 3.0, 2.0, 0.5, 0.1, torch.nan, torch.nan]),
        torch.tensor([True, False, False, True, False, True, True]),
    )
    assert new.x[:, 0].tolist() == [1, 0, 1, 0, 1, 0, 1]
    assert new.value.tolist() == [
        1.0,
        2.0,
        2.0,
        1.0,
        pytest.approx(0.1),
        1.0,
        -torch.inf,
    ]
    assert new.wrong.tolist() == [True, True, False, True, False, True, True]
