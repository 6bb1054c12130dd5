"""The Square Attack and its authors' code, given the same draws."""

from collections.abc import Iterator

import pytest
import torch
from pyautoattack.square import SquareAttack
from torch import Tensor, nn

from rrl_dist.attacks import L1, L2, Ball, Linf
from tests.attacks.square_by_hand import draws, sign, square, start_of

QUERIES, SCHEDULE = 60, 150  # down to the eighth of ten sizes


class Linear(nn.Module):
    """Never wrong about class 0; keeps what it has seen."""

    def __init__(self, pixels: int) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(1)
        self.weight = torch.randn(pixels, generator=rng)
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.clone())
        margin = x.flatten(1) @ self.weight - 100
        return torch.stack([torch.zeros_like(margin), margin], 1)


class Given(SquareAttack):
    """The authors' code for one sample. Its draws are given in the order of their use,
    and its windows reach the last row and column."""

    drawn: Iterator[Tensor]

    def begin(self, x: Tensor, sample: int) -> None:
        """x: [1, C, S, S], clean."""
        self.x, self.sample = x, sample
        channels, size = x.shape[1:3]
        self.channels = channels
        u = draws("start", sample, 0, 0)
        if self.norm == "Linf":
            self.drawn = iter(u(channels * size))
        else:
            tiles = u((1 + channels) * 25).reshape(1 + channels, 25)
            self.drawn = iter(tiles.T.flatten())

    def p_selection(self, it: int) -> float:
        """What each of its proposals begins with."""
        count = self.channels + (2 if self.norm == "Linf" else 5)
        self.drawn = iter(draws("window", self.sample, 0, it + 1)(count))
        share: float = super().p_selection(it * 10_000 // SCHEDULE)
        return share

    def check_shape(self, x: Tensor) -> Tensor:
        """All of its images go through here. It takes what rounding leaves of a change
        that the projection ends for a change, and scales that to a window's length."""
        return torch.where((x - self.x).abs() < 1e-6, self.x, x)

    def random_int(self, low: int = 0, high: int = 1) -> int:
        assert low == 0
        return start_of(next(self.drawn), 0, high)

    def random_choice(self, shape: list[int]) -> Tensor:
        count = torch.Size(shape).numel()
        return torch.tensor([sign(next(self.drawn)) for _ in range(count)]).view(shape)

    def eta(self, s: int) -> Tensor:
        turned = bool(next(self.drawn) < 0.5)
        pattern: Tensor = super().eta(s)
        # The upper half of one that is not turned is positive.
        return pattern if (pattern[0, -1] < 0) == turned else pattern.T


@pytest.mark.parametrize("size", [10, 11, 16, 20])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "ball",
    [Linf(0.1), L2(0.5), L2(5.0), L1(3.0), L1(12.0), L1(60.0)],
    ids=Ball.label,
)
def test_tries_the_images_of_the_authors_code(
    ball: Ball, channels: int, size: int
) -> None:
    rng = torch.Generator().manual_seed(0)
    x = (2 * torch.rand(1, channels, size, size, generator=rng) - 0.5).clamp(0, 1)
    y, model = torch.zeros(1, dtype=torch.int64), Linear(x.numel())
    attack = square(ball, QUERIES, schedule=SCHEDULE, size=1)
    attack.run(model, x, y, torch.tensor([5]))
    ours, model.seen = torch.cat(model.seen[1:]), []
    norm = {"linf": "Linf", "l2": "L2", "l1": "L1"}[ball.norm]
    theirs = Given(
        model, norm=norm, eps=ball.eps, n_queries=QUERIES - 1, resc_schedule=False
    )
    theirs.init_hyperparam(x)
    theirs.begin(x, sample=5)
    with torch.random.fork_rng():
        theirs.attack_single_run(x, y)
    torch.testing.assert_close(ours, torch.cat(model.seen), rtol=0, atol=1e-3)
    assert len(ours.unique(dim=0)) > QUERIES / 2
