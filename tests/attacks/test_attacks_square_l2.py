import pytest
import torch
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from rrl_dist.attacks import L2
from rrl_dist.attacks.bumps import bumps, pattern, tiled
from rrl_dist.attacks.square_l2 import BUMPS, L2Proposals
from rrl_dist.attacks.windows import Sizes, Window
from tests.attacks import square_by_hand as by_hand
from tests.attacks.square_by_hand import L2ByHand, search, square

Data = tuple[Tensor, Tensor]


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 6, 9, 16, 21])
def test_pattern_is_the_papers_and_the_authors(side: int) -> None:
    ours = pattern(side, BUMPS)
    torch.testing.assert_close(ours, by_hand.pattern(side, turned=False))
    assert float(ours.norm()) == pytest.approx(1)
    theirs = SquareAttack(None, norm="L2", eps=1.0, device="cpu")
    drawn = [theirs.eta(side) for _ in range(20)]
    for turned in (ours, ours.T):
        assert any(torch.allclose(turned, eta, atol=1e-6) for eta in drawn)


def test_bumps_lie_in_their_windows() -> None:
    rng = torch.Generator().manual_seed(0)
    sizes = Sizes((7, 5, 3), torch.randint(3, (30,), generator=rng))
    u = torch.rand(30, 2, generator=rng)
    turned = torch.rand(30, generator=rng) < 0.5
    window = Window.at(u, sizes.of_rows(), 7, 9)
    drawn = bumps(window, sizes, turned, BUMPS)
    assert drawn.shape == (30, 1, 7, 9)
    for i in range(30):
        side = int(sizes.of_rows()[i])
        r = by_hand.start_of(u[i, 0], side, 7)
        s = by_hand.start_of(u[i, 1], side, 9)
        expected = torch.zeros(7, 9)
        expected[r : r + side, s : s + side] = by_hand.pattern(side, bool(turned[i]))
        torch.testing.assert_close(drawn[i, 0], expected)


@pytest.mark.parametrize(
    ("height", "width", "tile", "tiles"),
    [(32, 32, 6, 25), (28, 28, 5, 25), (8, 8, 1, 64), (10, 23, 2, 55), (2, 3, 1, 6)],
)
def test_tiles_fill_the_image(height: int, width: int, tile: int, tiles: int) -> None:
    x = torch.zeros(2, 3, height, width)
    u = torch.rand(2, 4 * tiles, generator=torch.Generator().manual_seed(0))
    drawn = tiled(x.shape, lambda n: u[:, :n], BUMPS)
    for i in range(2):
        hand = L2ByHand(L2(1e-3)).first(x[i] + 0.5, lambda n, i=i: u[i, :n])
        expected = (hand - 0.5) * 1e3
        torch.testing.assert_close(
            drawn[i] / drawn[i].norm(), expected, rtol=0, atol=1e-4
        )
    covered = (drawn != 0).any(0).any(0).sum()
    assert covered == tile**2 * tiles
    torch.testing.assert_close(
        drawn.square().sum((2, 3)), torch.full((2, 3), 1.0 * tiles)
    )


def test_sides_are_odd_but_for_the_whole_image() -> None:
    proposals = L2Proposals(L2(1.0))
    sides = [proposals.side(0.8 / 2**k, 32, 32) for k in range(10)]
    assert sides == [29, 21, 15, 11, 7, 5, 5, 3, 3, 3]
    assert proposals.side(0.8, 2, 2) == 2
    assert proposals.side(1.0, 8, 8) == 8


def test_equals_a_literal_loop_over_samples(model: nn.Module, unseen: Data) -> None:
    x, y = (column[:20] for column in unseen)
    index, ball, queries = torch.arange(20) * 3 + 5, L2(0.7), 80
    attack = square(ball, queries)
    attacked = attack.run(model, x, y, index)
    right = model(x).argmax(1) == y
    same = 0
    for i in right.nonzero()[:, 0].tolist():
        hand = L2ByHand(ball)
        image, tried = search(model, hand, x[i], int(y[i]), int(index[i]), attack)
        near = torch.allclose(attacked.x_adv[i], image, rtol=0, atol=1e-4)
        same += bool(near and attacked.queries[i] == 1 + tried)
    # Another rounding may call one of two nearly equal margins the larger.
    assert same >= right.sum() - 1


def test_colours_equal_a_literal_loop() -> None:
    x = torch.rand(6, 3, 20, 17, generator=torch.Generator().manual_seed(0))
    proposals, ball = L2Proposals(L2(1.0)), L2(1.0)
    sizes = Sizes((17, 9, 3), torch.arange(6) % 3)
    parts = [0.85, 0.24, 0.01]
    frame = proposals.frame(x)
    best = proposals.first(frame, lambda n: _rows(0, n))
    for step in range(1, 30):
        moved = proposals.next(frame, best, sizes, lambda n, step=step: _rows(step, n))
        for i in range(6):
            part = parts[i % 3]
            u = lambda n, i=i, step=step: _rows(step, n)[i]  # noqa: E731
            expected = L2ByHand(ball).next(x[i], best[i], part, u)
            torch.testing.assert_close(moved[i], expected, rtol=0, atol=1e-4)
        best = moved


def _rows(step: int, n: int) -> Tensor:
    return torch.rand(6, n, generator=torch.Generator().manual_seed(step))


def test_a_change_stays_as_long_as_the_ball_allows() -> None:
    """Of grey nothing is clipped; roundings may not add up over the steps."""
    x = torch.full((6, 3, 20, 17), 0.5)
    proposals = L2Proposals(L2(0.5))
    sizes = Sizes((15, 9, 3), torch.arange(6) % 3)
    frame = proposals.frame(x)
    best = proposals.first(frame, lambda n: _rows(0, n))
    for step in range(1, 200):
        best = proposals.next(frame, best, sizes, lambda n, step=step: _rows(step, n))
        length = (best.double() - x).flatten(1).norm(dim=1)
        torch.testing.assert_close(
            length, torch.full_like(length, 0.5), rtol=1e-4, atol=0
        )
