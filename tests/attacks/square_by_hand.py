"""The Square Attack written out for one sample, slice by slice, from the paper; in L1
from the authors' code."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from rrl_dist.attacks import Ball, Linf
from rrl_dist.attacks.square import Square
from rrl_dist.core.randomness import uniform

SEED, SIZE, P_INIT = 7, 16, 0.8
HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000


def square(
    ball: Ball,
    queries: int,
    *,
    schedule: int | None = None,
    restarts: int = 1,
    size: int = SIZE,
) -> Square:
    """Its windows shrink to the smallest within its queries, unless told otherwise."""
    return Square(
        ball=ball,
        queries=queries,
        schedule=queries if schedule is None else schedule,
        p_init=P_INIT,
        restarts=restarts,
        seed=SEED,
        micro_batch=size,
    )


def draws(purpose: str, sample: int, trial: int, step: int) -> Callable[[int], Tensor]:
    place = torch.tensor([sample + trial * 2**32 + step * 2**40])
    return lambda n: uniform(SEED, "square", purpose, index=place, n=n)[0]


def sign(u: Tensor) -> int:
    return -1 if u < 0.5 else 1


def start_of(u: Tensor, side: int, length: int) -> int:
    """Of `length - side + 1` places."""
    return math.floor(float(u) * (length - side + 1))


def share(made: int, schedule: int) -> float:
    """Of the image, in the proposal after `made` ones."""
    return P_INIT / 2 ** sum(made * 10_000 > mark * schedule for mark in HALVINGS)


class LinfByHand:
    """Algorithm 2 of the paper; images are [C, H, W]."""

    def __init__(self, ball: Linf) -> None:
        self.eps = ball.eps

    def first(self, x: Tensor, u: Callable[[int], Tensor]) -> Tensor:
        channels, _, width = x.shape
        v = u(channels * width)
        moved = x.clone()
        for c in range(channels):
            for column in range(width):
                moved[c, :, column] += self.eps * sign(v[c * width + column])
        return moved.clamp(0, 1)

    def next(
        self, x: Tensor, best: Tensor, part: float, u: Callable[[int], Tensor]
    ) -> Tensor:
        channels, height, width = x.shape
        side = max(round(math.sqrt(part * height * width)), 1)
        side = min(side, height, width)
        v = u(2 + channels)
        r, s = start_of(v[0], side, height), start_of(v[1], side, width)
        moved = best.clone()
        for c in range(channels):
            shift = 2 * self.eps * sign(v[2 + c])
            moved[c, r : r + side, s : s + side] += shift
        return (x + (moved - x).clamp(-self.eps, self.eps)).clamp(0, 1)


def bump(height: int, width: int, power: int, order: int) -> Tensor:
    """Eq. 2 of the paper, where power and order are 2."""
    values = torch.zeros(height, width, dtype=torch.float64)
    n = max(height, width) // 2
    for r in range(height):
        for s in range(width):
            m = n - max(abs(r - height // 2), abs(s - width // 2))
            values[r, s] = sum(1 / (n + 1 - k) ** power for k in range(m + 1))
    return values / max(float(values.norm(order)), 1e-12)


def pattern(side: int, turned: bool, power: int = 2, order: int = 2) -> Tensor:
    half = side // 2
    both = torch.cat([bump(n, side, power, order) for n in (half, side - half)])
    both[half:] *= -1
    both = (both / both.norm(order)).float()
    return both.T if turned else both


def tiles(x: Tensor, u: Callable[[int], Tensor], power: int, order: int) -> Tensor:
    """The change that a search begins with, not yet scaled."""
    channels, height, width = x.shape
    tile = max(min(height, width) // 5, 1)
    down, across = height // tile, width // tile
    v = u((1 + channels) * down * across).reshape(1 + channels, down, across)
    delta = torch.zeros_like(x)
    for a in range(down):
        for b in range(across):
            r = (height - down * tile) // 2 + a * tile
            s = (width - across * tile) // 2 + b * tile
            shape = pattern(tile, bool(v[0, a, b] < 0.5), power, order)
            for c in range(channels):
                delta[c, r : r + tile, s : s + tile] = sign(v[1 + c, a, b]) * shape
    return delta


def two_windows(
    x: Tensor, part: float, v: Tensor
) -> tuple[int, list[tuple[slice, slice]]]:
    """Their side, and where the change goes and where it comes from."""
    _, height, width = x.shape
    side = max(round(math.sqrt(part * height * width)), 3)
    side = min(side + (side % 2 == 0), height, width)
    corners = [
        (start_of(v[k], side, height), start_of(v[k + 1], side, width)) for k in (0, 2)
    ]
    return side, [(slice(r, r + side), slice(s, s + side)) for r, s in corners]


class L2ByHand:
    """Algorithm 3 of the paper; images are [C, H, W]."""

    def __init__(self, ball: Ball) -> None:
        self.eps = ball.eps

    def first(self, x: Tensor, u: Callable[[int], Tensor]) -> Tensor:
        delta = tiles(x, u, power=2, order=2)
        return (x + self.eps * delta / delta.norm()).clamp(0, 1)

    def next(
        self, x: Tensor, best: Tensor, part: float, u: Callable[[int], Tensor]
    ) -> Tensor:
        channels, height, width = x.shape
        v = u(5 + channels)
        side, (to, source) = two_windows(x, part, v)
        delta = best - x
        unused = max(self.eps**2 - float(delta.square().sum()), 0)
        for c in range(channels):
            union = torch.zeros(height, width)
            union[to] = union[source] = 1
            old = delta[c][to]
            mixed = sign(v[5 + c]) * pattern(side, bool(v[4] < 0.5))
            if old.norm() > 0:
                mixed = mixed + old / old.norm()
            held = float((delta[c] * union).square().sum())
            delta[c][source] = 0
            length = math.sqrt(held + unused / channels)
            delta[c][to] = mixed / mixed.norm() * length
        longer = max(float(delta.norm()) / self.eps, 1)
        return (x + delta / longer).clamp(0, 1)


class L1ByHand:
    """The authors' code, but for the places of windows; images are [C, H, W]."""

    def __init__(self, ball: Ball) -> None:
        self.eps = ball.eps

    def first(self, x: Tensor, u: Callable[[int], Tensor]) -> Tensor:
        return nearest(x, tiles(x, u, power=4, order=1), self.eps)

    def next(
        self, x: Tensor, best: Tensor, part: float, u: Callable[[int], Tensor]
    ) -> Tensor:
        channels = len(x)
        v = u(5 + channels)
        side, (to, source) = two_windows(x, part, v)
        delta = best - x
        unused = max(self.eps - float(delta.abs().sum()), 0)
        for c in range(channels):
            union = torch.zeros_like(x[0])
            union[to] = union[source] = 1
            old = delta[c][to]
            mixed = sign(v[5 + c]) * pattern(side, bool(v[4] < 0.5), 4, 1)
            if old.abs().sum() > 0:
                mixed = mixed + old / old.abs().sum()
            held = float((delta[c] * union).abs().sum())
            delta[c][source] = 0
            amount = (unused / channels + held) * channels
            delta[c][to] = mixed / mixed.abs().sum() * amount
        return nearest(x, delta, self.eps)


def nearest(x: Tensor, delta: Tensor, eps: float) -> Tensor:
    """Of the images in [0, 1] whose changes add up to at most eps, that nearest to
    x + delta. All changes are less by one amount, which lies between two of those at
    which a change ends or a bound of [0, 1] is left."""
    wanted = delta.double()
    room = torch.where(wanted > 0, 1 - x.double(), x.double())
    size = wanted.abs()

    def changed(less: float) -> Tensor:
        return torch.minimum((size - less).clamp_min(0), room)

    ends = torch.cat([size.flatten(), (size - room).flatten()]).clamp_min(0).unique()
    sums = [float(changed(end).sum()) for end in [0.0, *ends.tolist()]]
    after = next(k for k, total in enumerate(sums) if total <= eps)
    less = 0.0
    if after > 0:
        low, high = [0.0, *ends.tolist()][after - 1 : after + 1]
        less = low + (high - low) * (sums[after - 1] - eps) / (
            sums[after - 1] - sums[after]
        )
    return (x + changed(less) * wanted.sign()).float()


def margin(model: nn.Module, image: Tensor, y: int) -> float:
    """Largest other logit minus the label's, at the shape of the attack's calls."""
    logits = model(image.expand(SIZE, *image.shape).contiguous())[0].detach()
    return float(torch.cat([logits[:y], logits[y + 1 :]]).max() - logits[y])


def search(
    model: nn.Module,
    hand: LinfByHand | L2ByHand | L1ByHand,
    x: Tensor,
    y: int,
    sample: int,
    attack: Square,
    trial: int = 0,
) -> tuple[Tensor, int]:
    """Algorithm 1, stopped at the first wrong image: the best image, and how many were
    tried."""
    best = hand.first(x, draws("start", sample, trial, 0))
    strength, tried = margin(model, best, y), 1
    while tried < attack.queries and strength <= 0:
        u = draws("window", sample, trial, tried)
        image = hand.next(x, best, share(tried - 1, attack.schedule), u)
        now = margin(model, image, y)
        tried += 1
        if now > strength:
            best, strength = image, now
    return best, tried
