import math
from itertools import pairwise

import numpy as np
import pytest

from rrl_dist.attacks import L2
from rrl_dist.core.aggregate import wilson
from rrl_dist.core.columns import Columns
from rrl_dist.evaluate.distances import nearest

# Wrong from the start, found at 1 and at 3, and never found within 4.
DISTANCES, CORRECT = [0.0, 1.0, 3.0, 0.0], [False, False, False, True]


@pytest.fixture
def columns() -> Columns:
    zeros = np.zeros(4)
    return Columns(
        index=np.arange(4),
        correct=np.array(CORRECT),
        loss=zeros,
        distance=np.array(DISTANCES),
        displacement=None,
        broken_by=zeros.astype(np.int64) - 1,
        attacks=(),
        confidence=zeros,
        answer_right=np.array(CORRECT),
    )


def test_all_images_count_and_those_never_broken_with_the_largest_radius(
    columns: Columns,
) -> None:
    found = nearest(columns, "tangent50-l2@4", L2(4.0), wilson)
    assert found["attack"] == "tangent50-l2@4"
    assert (found["norm"], found["radius"]) == ("l2", 4.0)
    assert (found["value"], found["median"]) == (2.0, 2.0)
    assert found["low"] < 2 < found["high"]
    assert (found["count"], found["censored"]) == (4, 1)


def test_the_curve_is_the_share_without_a_wrong_image_so_near(
    columns: Columns,
) -> None:
    curve = nearest(columns, "any", L2(4.0), wilson)["curve"]
    assert [point["eps"] for point in curve][::8] == [0.0, 1.0, 4.0]
    for point in curve:
        left = sum(
            right or distance > point["eps"]
            for right, distance in zip(CORRECT, DISTANCES, strict=True)
        )
        assert point["value"] == left / 4
        assert point["low"] <= point["value"] <= point["high"]
    assert curve[-1]["value"] == 0.25


def test_below_the_mean_lies_the_area_under_the_curve(columns: Columns) -> None:
    """The mean of distances up to a radius is the integral of the curve up to it."""
    found = nearest(columns, "any", L2(4.0), wilson)
    curve = found["curve"]
    steps = list(pairwise(curve))
    low = math.fsum((b["eps"] - a["eps"]) * b["value"] for a, b in steps)
    high = math.fsum((b["eps"] - a["eps"]) * a["value"] for a, b in steps)
    assert low <= found["value"] <= high
