"""What `make test` leaves to `make soak`: the marker `long`.

A test is long where a shorter one shows the same property: another pair of the same two
lists, the same comparison over more images or seeds.
"""

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import pytest


def covering(first: Iterable[Any], second: Sequence[Any]) -> list[Any]:
    """All pairs; but for as many as have each of both once or more, they are long."""
    one, other = list(first), list(second)
    kept = {(i % len(one), i % len(other)) for i in range(max(len(one), len(other)))}
    pairs = product(enumerate(one), enumerate(other))
    return [
        pytest.param(a, b, marks=() if (i, j) in kept else pytest.mark.long)
        for (i, a), (j, b) in pairs
    ]


def long(*values: Any) -> Any:
    """A case that is long."""
    return pytest.param(*values, marks=pytest.mark.long)
