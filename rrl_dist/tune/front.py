"""Which of several points are best, where more is better in each of one or two
coordinates."""

from collections.abc import Iterable, Sequence

Point = Sequence[float]


def better(a: Point, b: Point) -> bool:
    """Whether `a` is as good as `b` in each coordinate and better in one."""
    pairs = list(zip(a, b, strict=True))
    return all(x >= y for x, y in pairs) and any(x > y for x, y in pairs)


def front(points: Sequence[Point]) -> list[int]:
    """Places of those that no other is better than, growing; equals are all there.

    From the best in the first coordinate on, a point is kept if it gains in the second.
    """
    plane = [_plane(point) for point in points]
    kept: list[int] = []
    for place in sorted(range(len(plane)), key=plane.__getitem__, reverse=True):
        last = plane[kept[-1]] if kept else None
        if last is None or plane[place][1] > last[1] or plane[place] == last:
            kept.append(place)
    return sorted(kept)


def hypervolume(points: Iterable[Point], reference: Point) -> float:
    """Of what is better than the reference and no better than some point: of one
    coordinate a length, of two an area."""
    left, low = _plane(reference)
    total = 0.0
    if len(reference) == 1:
        low -= 1  # a length is an area of height 1
    for x, y in sorted(map(_plane, points), reverse=True):
        if x > left and y > low:
            total += (x - left) * (y - low)
            low = y
    return total


def _plane(point: Point) -> tuple[float, float]:
    """One coordinate leaves nothing to choose in a second."""
    first, *second = point
    return first, second[0] if second else 0.0
