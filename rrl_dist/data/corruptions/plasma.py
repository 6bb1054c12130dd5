"""Plasma fractals: random landscapes, rough at every scale."""

from torch import Tensor


def plasma(draws: Tensor, size: int, *, decay: float) -> Tensor:
    """Landscapes by the diamond-square algorithm (Fournier, Fussell, Carpenter 1982).

    The side is a power of two and the landscape a torus. At each scale a point is the
    mean of four others and a uniform draw, whose range falls by the square of `decay`
    from scale to scale, since the authors' generators multiply the range by itself.

    Args:
        draws: [N, side * side - 1] double in (0, 1), side = `side_of(size)`.
        size: of the part that is wanted.
        decay: above 1; the larger, the smoother.

    Returns:
        [N, size, size] double; the whole landscape lies from 0 to 1.
    """
    side = side_of(size)
    land = draws.new_zeros(len(draws), side, side)
    step, reach, used = side, 1.0, 0

    def moved(total: Tensor) -> Tensor:
        nonlocal used
        count = total[0].numel()
        own = draws[:, used : used + count].view_as(total)
        used += count
        return total / 4 + reach * (2 * own - 1)

    while step >= 2:
        half = step // 2
        corners = land[:, ::step, ::step]
        total = corners + corners.roll(-1, 1)
        land[:, half::step, half::step] = moved(total + total.roll(-1, 2))
        middles = land[:, half::step, half::step]
        beside = middles + middles.roll(1, 1) + corners + corners.roll(-1, 2)
        land[:, ::step, half::step] = moved(beside)
        below = middles + middles.roll(1, 2) + corners + corners.roll(-1, 1)
        land[:, half::step, ::step] = moved(below)
        step, reach = half, reach / decay**2
    land -= land.amin((1, 2), keepdim=True)
    land /= land.amax((1, 2), keepdim=True)
    return land[:, :size, :size]


def side_of(size: int) -> int:
    """The least power of two, from 2, that is not below `size`."""
    return max(2, 1 << (size - 1).bit_length())
