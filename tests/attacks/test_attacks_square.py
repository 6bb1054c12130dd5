import math
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rrl_dist.attacks import L1, L2, Ball, Linf
from rrl_dist.attacks.classifier import borrowed
from rrl_dist.attacks.draws import row_draws
from rrl_dist.attacks.margins import misclassified
from rrl_dist.attacks.micro_batches import in_micro_batches
from rrl_dist.attacks.square import Square
from rrl_dist.attacks.trial_attack import run_trials
from rrl_dist.attacks.trials import Packing, Samples
from rrl_dist.attacks.windows import Window
from rrl_dist.core.errors import UserError
from rrl_dist.core.randomness import uniform
from tests.attacks.square_by_hand import (
    P_INIT,
    SEED,
    LinfByHand,
    search,
    square,
)

Data = tuple[Tensor, Tensor]


@pytest.mark.parametrize("schedule", [60, 120, 1_000])
def test_equals_a_literal_loop_over_samples(
    schedule: int, model: nn.Module, unseen: Data
) -> None:
    x, y = (column[:24] for column in unseen)
    index, ball = torch.arange(24) * 3 + 5, Linf(0.2)
    attack = square(ball, 120, schedule=schedule)
    attacked = attack.run(model, x, y, index)
    right = (model(x).argmax(1) == y).tolist()
    for i in range(24):
        if not right[i]:
            assert torch.equal(attacked.x_adv[i], x[i])
            assert attacked.queries[i] == 1
            continue
        hand = LinfByHand(ball)
        image, tried = search(model, hand, x[i], int(y[i]), int(index[i]), attack)
        assert attacked.queries[i] == 1 + tried
        torch.testing.assert_close(attacked.x_adv[i], image, rtol=0, atol=1e-6)
    assert len(attacked.queries.unique()) > 5


class Stubborn(nn.Module):
    """Right about class 0, with a margin that changes with every pixel; keeps what it
    has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        assert not x.requires_grad
        assert not torch.is_grad_enabled()
        self.seen.append(x.clone())
        hashed = (1e4 * x.flatten(1).sum(1)).sin() - 2
        return torch.stack([torch.zeros_like(hashed), hashed], 1)


shapes = st.sampled_from([(1, 1, 1), (3, 2, 5), (1, 7, 3), (3, 12, 12), (2, 11, 16)])


@st.composite
def starts(draw: st.DrawFn) -> Tensor:
    """[4, C, H, W] clean images: noise, or one colour."""
    rng = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    x = torch.rand(4, *draw(shapes), generator=rng)
    if draw(st.booleans()):
        x = torch.full_like(x, draw(st.sampled_from([0.0, 0.1, 0.7, 0.99, 1.0])))
    return x


@pytest.mark.parametrize("kind", [Linf, L2, L1])
@settings(max_examples=30, deadline=None)
@given(x=starts(), eps=st.sampled_from([1e-4, 8 / 255, 0.05, 0.5, 1.0, 3.0]))
def test_all_that_is_tried_is_in_the_ball_and_in_range(
    kind: type[Ball], x: Tensor, eps: float
) -> None:
    model, ball = Stubborn(), kind(eps)
    square(ball, 40, size=4)(model, x, torch.zeros(4, dtype=torch.int64))
    assert len(model.seen) == 41
    for seen in model.seen:
        # In float64: the distance itself must not round the excess away.
        distance = ball.distance(seen.double(), x.double())
        assert (distance <= eps * (1 + 1e-6)).all()
        assert seen.min() >= 0
        assert seen.max() <= 1


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5), L1(2.0)], ids=Ball.label)
def test_a_change_of_larger_margin_is_kept_and_no_other(ball: Ball) -> None:
    x = torch.rand(4, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    model = Stubborn()
    x_adv = square(ball, 60, size=4)(model, x, torch.zeros(4, dtype=torch.int64))
    tried = torch.stack(model.seen[1:])
    with torch.no_grad():
        margins = torch.stack([model(images)[:, 1] for images in tried])
    best = margins.argmax(0)
    assert torch.equal(x_adv, tried[best, torch.arange(4)])


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5), L1(2.0)], ids=Ball.label)
@pytest.mark.parametrize("in_turn", [False, True])
def test_wrong_says_where_the_model_is_wrong(
    ball: Ball, in_turn: bool, model: nn.Module, unseen: Data
) -> None:
    x, y = unseen
    right = model(x).argmax(1) == y
    x, y = x[right], y[right]
    packing, attack = Packing(96, in_turn), square(ball, 60, restarts=2, size=96)
    with borrowed(model) as classifier:
        samples = Samples(x, y, torch.arange(len(x)), classifier(x))
        called = classifier.sooner(x)
        found = run_trials(attack, called, samples, trials=2, packing=packing)
        (logits,) = in_micro_batches(lambda x: (classifier(x),), found.x, size=96)
    assert torch.equal(found.wrong, misclassified(logits, y))
    assert 20 < found.wrong.sum() < len(x) - 20
    assert (found.queries[~found.wrong] == 120).all()
    again = attack.run(model, x, y)
    assert torch.equal(again.x_adv, found.x)
    assert torch.equal(again.queries, 1 + found.queries)


def test_a_restart_has_draws_of_its_own(model: nn.Module, unseen: Data) -> None:
    x, y = (column[:60] for column in unseen)
    ball, index = Linf(0.1), torch.arange(60)
    attack = square(ball, 40, restarts=3)
    attacked = attack.run(model, x, y)
    later = (attacked.queries > 41) & (attacked.queries < 121)
    assert later.any()
    for i in later.nonzero()[:, 0].tolist():
        trial, used = divmod(int(attacked.queries[i]) - 2, 40)
        image, tried = search(
            model, LinfByHand(ball), x[i], int(y[i]), int(index[i]), attack, trial
        )
        assert tried == used + 1
        torch.testing.assert_close(attacked.x_adv[i], image, rtol=0, atol=1e-6)


def test_starts_with_stripes_of_each_channel() -> None:
    x = torch.full((4, 3, 8, 6), 0.5)
    model = Stubborn()
    square(Linf(0.1), 2, size=4)(model, x, torch.zeros(4, dtype=torch.int64))
    first = model.seen[1]
    assert torch.equal(first, first[:, :, :1].expand_as(first))
    torch.testing.assert_close((first - 0.5).abs(), torch.full_like(x, 0.1))
    # Equal images: the draws differ between samples and channels.
    assert len(first.reshape(12, -1).unique(dim=0)) == 12


def test_a_window_has_one_colour_and_samples_have_their_own() -> None:
    x = torch.full((64, 3, 10, 10), 0.5)
    model = Stubborn()
    square(Linf(0.1), 2, size=64)(model, x, torch.zeros(64, dtype=torch.int64))
    first, second = model.seen[1:3]
    side = round(math.sqrt(P_INIT * 100))
    corners = set()
    for before, after in zip(first, second, strict=True):
        rows, columns = (before != after).any(0).nonzero().unbind(1)
        assert int(rows.max() - rows.min()) < side
        assert int(columns.max() - columns.min()) < side
        box = after[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert torch.equal(box, box[:, :1, :1].expand_as(box))
        corners.add((int(rows.min()), int(columns.min())))
    assert {row for row, _ in corners} == {0, 1}
    assert len(corners) > 2


@settings(max_examples=100, deadline=None)
@given(data=st.data(), height=st.integers(1, 20), width=st.integers(1, 20))
def test_windows_lie_where_slices_do(
    data: st.DataObject, height: int, width: int
) -> None:
    shortest = min(height, width)
    sides = data.draw(st.lists(st.integers(1, shortest), min_size=1, max_size=5))
    largest = 1 - 2.0**-24
    part = st.sampled_from([0.0, largest]) | st.floats(0, largest, width=32)
    u = torch.tensor([[data.draw(part), data.draw(part)] for _ in sides])
    window = Window.at(u, torch.tensor(sides), height, width)
    for i, side in enumerate(sides):
        r, s = (
            math.floor(float(u[i, k] * (length - side + 1)))
            for k, length in enumerate((height, width))
        )
        expected = torch.zeros(height, width, dtype=torch.bool)
        expected[r : r + side, s : s + side] = True
        assert expected.sum() == side**2  # all of it lies in the image
        assert torch.equal(window.inside[i, 0], expected)
        assert window.down[i].tolist() == [row - r for row in range(height)]
        assert window.across[i].tolist() == [column - s for column in range(width)]


def test_draws_of_rows_are_those_of_their_place() -> None:
    places = list(_places())
    ids, number, step = torch.tensor(places).unbind(1)
    drawn = row_draws(3, "square", "window", ids, number, step, 4)
    for row, (sample, trial, at) in zip(drawn, places, strict=True):
        place = torch.tensor([sample + trial * 2**32 + at * 2**40])
        assert torch.equal(row, uniform(3, "square", "window", index=place, n=4)[0])
    assert len(drawn.unique(dim=0)) == len(places)
    assert not torch.equal(drawn, row_draws(3, "square", "start", ids, number, step, 4))


def _places() -> Iterator[tuple[int, int, int]]:
    for sample in (0, 1, 2**32 - 1):
        for trial in (0, 1, 255):
            for step in (0, 1, 4_999, 2**23 - 1):
                yield sample, trial, step


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"queries": 0}, "queries=0"),
        ({"schedule": 0}, "schedule=0"),
        ({"restarts": 0}, "restarts=0"),
        ({"micro_batch": 0}, "micro_batch=0"),
        ({"p_init": 0.0}, "p_init=0.0"),
        ({"p_init": 1.5}, "p_init=1.5"),
        ({"p_init": math.nan}, "p_init=nan"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, float], found: str) -> None:
    usual = {
        "queries": 5,
        "schedule": 5,
        "p_init": 0.8,
        "restarts": 1,
        "micro_batch": 4,
    }
    with pytest.raises(UserError, match=found):
        Square(ball=Linf(0.1), seed=SEED, **{**usual, **change})


class Unknown(Ball):
    """A ball of a norm that no windows are known for."""

    norm = "l7"
    project = steepest = start = surface_start = distance = None


def test_a_ball_without_windows_is_refused() -> None:
    with pytest.raises(UserError, match=r"l7@0\.1; use linf\|l2\|l1"):
        square(Unknown(0.1), 5)


class Answer(nn.Module):
    """Logits of which the first is `big` times what it should be."""

    def __init__(self, big: float) -> None:
        super().__init__()
        self.big = big
        self.linear = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x.flatten(1))
        return torch.cat([logits[:, :1] * self.big, logits[:, 1:]], 1)


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5), L1(2.0)], ids=Ball.label)
@pytest.mark.parametrize("big", [1e30, torch.inf, -torch.inf])
def test_overflowing_logits_give_images(ball: Ball, big: float) -> None:
    x = torch.rand(9, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    infinite = pytest.warns(UserWarning, match="infinite logits")
    with infinite if math.isinf(big) else nullcontext():
        x_adv = square(ball, 20)(Answer(big), x, torch.arange(9) % 3)
    assert x_adv.isfinite().all()
    assert (ball.distance(x_adv, x) <= ball.eps * (1 + 1e-6)).all()


def test_a_model_of_nan_logits_is_named() -> None:
    y = torch.zeros(2, dtype=torch.int64)
    with pytest.raises(UserError, match="NaN logits"):
        square(Linf(0.1), 5)(Answer(torch.nan), torch.rand(2, 1, 8, 8), y)


def test_rows_of_features_are_refused(model: nn.Module) -> None:
    y = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(UserError, match=r"shape \(3, 64\); give \[images") as caught:
        square(Linf(0.1), 5)(model, torch.rand(3, 64), y)
    assert "\n" not in str(caught.value)
