"""Estimates of mutual information written out, pair by pair."""

import math
from collections.abc import Callable

# Of the place of one image and the representation of another: u(image, other, place).
Score = Callable[[int, int, int], float]


def softplus(u: float) -> float:
    return math.log1p(math.exp(-abs(u))) + max(u, 0.0)


def log_mean(scores: list[float]) -> float:
    return math.log(sum(math.exp(u) for u in scores) / len(scores))


def donsker_varadhan(u: Score, n: int, places: int) -> float:
    found = 0.0
    for place in range(places):
        near = [u(i, i, place) for i in range(n)]
        away = [u(i, j, place) for i in range(n) for j in range(n) if i != j]
        found += sum(near) / n - log_mean(away)
    return found / places


def info_nce(u: Score, n: int, places: int) -> float:
    found = 0.0
    for place in range(places):
        for i in range(n):
            found += u(i, i, place) - log_mean([u(j, i, place) for j in range(n)])
    return found / (n * places)


def jensen_shannon(u: Score, n: int, places: int) -> float:
    found = 0.0
    for place in range(places):
        near = [math.log(2) - softplus(-u(i, i, place)) for i in range(n)]
        away = [
            softplus(u(i, j, place)) - math.log(2)
            for i in range(n)
            for j in range(n)
            if i != j
        ]
        found += sum(near) / n - sum(away) / len(away)
    return found / places


def released_dv(u: Score, n: int, places: int) -> float:
    """Matching scores times 0, and then among the exponentials."""
    found = 0.0
    for place in range(places):
        near = [u(i, i, place) for i in range(n)]
        away = [u(i, j, place) * (i != j) for i in range(n) for j in range(n)]
        total = sum(math.exp(score) for score in away) / (n * (n - 1))
        found += sum(near) / n - math.log(total)
    return found / places


def released_nce(u: Score, n: int, places: int) -> float:
    """All places of the other images, and -10 for all of the same."""
    found = 0.0
    for place in range(places):
        for i in range(n):
            away = [
                u(j, i, other) if i != j else -10.0
                for j in range(n)
                for other in range(places)
            ]
            total = math.exp(u(i, i, place)) + sum(math.exp(score) for score in away)
            found += u(i, i, place) - math.log(total)
    return found / (n * places) + math.log((n - 1) * places + 1)


LITERAL: dict[tuple[str, bool], Callable[[Score, int, int], float]] = {
    ("dv", False): donsker_varadhan,
    ("nce", False): info_nce,
    ("jsd", False): jensen_shannon,
    ("dv", True): released_dv,
    ("nce", True): released_nce,
    ("jsd", True): jensen_shannon,
}
