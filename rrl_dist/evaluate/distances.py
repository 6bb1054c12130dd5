"""How far images are from the nearest wrong one that an attack has found."""

import math
from typing import Any

import numpy as np

from rrl_dist.attacks.balls import Ball
from rrl_dist.core.aggregate import Interval, mean_of, rounded
from rrl_dist.core.columns import Columns

# Of the curve, without the clean images: closer where most images are broken.
POINTS = 16


def nearest(
    columns: Columns, component: str, ball: Ball, interval: Interval
) -> dict[str, Any]:
    """Mean, median, and the share that is right at each distance.

    All images count, so that models are compared on the same ones: an image that is
    wrong itself is at distance 0; one that was never broken counts with the largest
    radius tried, and is counted as censored.

    Args:
        columns: of the component that looks for nearest images.
        component: its name.
        ball: its norm, and the largest radius tried.
        interval: of shares.
    """
    distance = np.where(columns.correct, ball.eps, columns.distance)
    # Of those that were never broken at any radius that was tried.
    beyond = np.where(columns.correct, math.inf, columns.distance)
    radii = [ball.eps * (place / POINTS) ** 2 for place in range(POINTS + 1)]
    shares = [interval(int((beyond > eps).sum()), len(beyond)) for eps in radii]
    return {
        "attack": component,
        "norm": ball.norm,
        "radius": ball.eps,
        **mean_of(distance.tolist()).as_dict(),
        "median": rounded(float(np.median(distance))),
        "censored": int(columns.correct.sum()),
        "curve": [
            {"eps": rounded(eps), **share.as_dict()}
            for eps, share in zip(radii, shares, strict=True)
        ],
    }
