import pytest
import torch
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from rrl_dist.attacks import L1
from rrl_dist.attacks.bumps import pattern
from rrl_dist.attacks.square_l1 import BUMPS, L1Proposals
from rrl_dist.attacks.windows import Sizes
from tests.attacks import square_by_hand as by_hand
from tests.attacks.square_by_hand import L1ByHand, search, square

Data = tuple[Tensor, Tensor]
SHAPES = [(1, 8, 8), (3, 20, 17), (3, 11, 16), (1, 23, 10)]


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 6, 9, 16, 21])
def test_pattern_is_the_authors(side: int) -> None:
    ours = pattern(side, BUMPS)
    assert float(ours.abs().sum()) == pytest.approx(1)
    torch.testing.assert_close(ours, by_hand.pattern(side, False, power=4, order=1))
    theirs = SquareAttack(None, norm="L1", eps=1.0, device="cpu")
    drawn = [theirs.eta(side) for _ in range(20)]
    for turned in (ours, ours.T):
        assert any(torch.allclose(turned, eta, atol=1e-6) for eta in drawn)


def test_sides_are_odd_but_for_the_whole_image() -> None:
    proposals = L1Proposals(L1(12.0))
    sides = [proposals.side(0.8 / 2**k, 32, 32) for k in range(10)]
    assert sides == [29, 21, 15, 11, 7, 5, 5, 3, 3, 3]
    assert proposals.side(0.8, 2, 2) == 2
    assert proposals.side(1.0, 8, 8) == 8


def rows(step: int, n: int) -> Tensor:
    """Draws of 6 images."""
    return torch.rand(6, n, generator=torch.Generator().manual_seed(step))


def clean(shape: tuple[int, int, int]) -> Tensor:
    """Noise, half of whose pixels are at a bound of [0, 1]."""
    x = torch.rand(6, *shape, generator=torch.Generator().manual_seed(0))
    return (2 * x - 0.5).clamp(0, 1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("eps", [0.3, 12.0, 200.0])
def test_proposals_equal_a_literal_version(
    shape: tuple[int, int, int], eps: float
) -> None:
    x, ball = clean(shape), L1(eps)
    proposals, hand = L1Proposals(ball), L1ByHand(ball)
    parts = [0.7, 0.24, 0.01]
    sides = tuple(proposals.side(part, *shape[1:]) for part in parts)
    sizes, frame = Sizes(sides, torch.arange(6) % 3), proposals.frame(x)
    best = proposals.first(frame, lambda n: rows(0, n))
    for i in range(6):
        first = hand.first(x[i], lambda n, i=i: rows(0, n)[i])
        torch.testing.assert_close(best[i], first, rtol=0, atol=1e-5)
    for step in range(1, 20):
        moved = proposals.next(frame, best, sizes, lambda n, step=step: rows(step, n))
        for i in range(6):
            u = lambda n, i=i, step=step: rows(step, n)[i]  # noqa: E731
            expected = hand.next(x[i], best[i], parts[i % 3], u)
            torch.testing.assert_close(moved[i], expected, rtol=0, atol=1e-4)
        best = moved


def test_equals_a_literal_loop_over_samples(model: nn.Module, unseen: Data) -> None:
    x, y = (column[:20] for column in unseen)
    index, ball = torch.arange(20) * 3 + 5, L1(3.0)
    attack = square(ball, 80, schedule=300)
    attacked = attack.run(model, x, y, index)
    right = model(x).argmax(1) == y
    assert 3 < (attacked.queries[right] < 81).sum() < right.sum()
    same = 0
    for i in right.nonzero()[:, 0].tolist():
        hand = L1ByHand(ball)
        image, tried = search(model, hand, x[i], int(y[i]), int(index[i]), attack)
        near = torch.allclose(attacked.x_adv[i], image, rtol=0, atol=1e-4)
        same += bool(near and attacked.queries[i] == 1 + tried)
    # Another rounding may call one of two nearly equal margins the larger.
    assert same >= right.sum() - 1


def test_outcomes_depend_on_no_companion(model: nn.Module, unseen: Data) -> None:
    x, y = (column[:40] for column in unseen)
    attack, index = square(L1(4.0), 60, restarts=2), torch.arange(40) * 5
    whole = attack.run(model, x, y, index)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    for count in (1, 7, 40):
        for part in order.split(count):
            found = attack.run(model, x[part], y[part], index[part])
            assert torch.equal(found.x_adv, whole.x_adv[part])
            assert torch.equal(found.queries, whole.queries[part])
    assert len(whole.queries.unique()) > 9


def test_windows_lie_at_all_places() -> None:
    """Also at the last row and column; without a change yet only the window's shows."""
    x = torch.full((600, 1, 5, 7), 0.5)
    sizes = Sizes((3,), torch.zeros(600, dtype=torch.int64))
    u = torch.rand(600, 6, generator=torch.Generator().manual_seed(0))
    proposals = L1Proposals(L1(1.0))
    moved = proposals.next(proposals.frame(x), x, sizes, lambda n: u[:, :n])
    places = {
        tuple(int(end) for line in (r, s) for end in (line.min(), line.max()))
        for r, s in ((image != 0.5).nonzero().unbind(1) for image in moved[:, 0])
    }
    assert places == {(r, r + 2, s, s + 2) for r in range(3) for s in range(5)}


@pytest.mark.parametrize("channels", [1, 3])
def test_a_change_stays_as_long_as_the_ball_allows(channels: int) -> None:
    """Of grey nothing is clipped."""
    x = torch.full((6, channels, 20, 17), 0.5)
    proposals = L1Proposals(L1(0.5))
    sizes = Sizes((15, 9, 3), torch.arange(6) % 3)
    frame = proposals.frame(x)
    best = proposals.first(frame, lambda n: rows(0, n))
    for step in range(1, 100):
        best = proposals.next(frame, best, sizes, lambda n, step=step: rows(step, n))
        length = (best.double() - x).flatten(1).abs().sum(1)
        torch.testing.assert_close(
            length, torch.full_like(length, 0.5), rtol=1e-4, atol=0
        )


def test_a_small_ball_begins_with_the_peaks_of_tiles() -> None:
    """A tile has one peak in each half, and the projection takes all else."""
    x = torch.full((6, 1, 25, 25), 0.5)
    proposals = L1Proposals(L1(1e-2))
    first = proposals.first(proposals.frame(x), lambda n: rows(0, n))
    tiles = (first - x).reshape(6, 5, 5, 5, 5).transpose(2, 3).flatten(3)
    assert ((tiles > 0).sum(3) <= 1).all()
    assert ((tiles < 0).sum(3) <= 1).all()
    assert ((tiles != 0).sum(3) >= 1).all()
