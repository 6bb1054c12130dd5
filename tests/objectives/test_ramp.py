import pytest

from rrl_dist.core.errors import UserError
from rrl_dist.objectives.ramp import Ramp


@pytest.mark.parametrize(
    ("start", "end", "progress", "share"),
    [
        (0.0, 0.0, 0.0, 1.0),
        (0.0, 1.0, 0.0, 0.0),
        (0.2, 0.6, 0.1, 0.0),
        (0.2, 0.6, 0.2, 0.0),
        (0.2, 0.6, 0.3, 0.25),
        (0.2, 0.6, 0.6, 1.0),
        (0.2, 0.6, 0.99, 1.0),
        (0.5, 0.5, 0.49, 0.0),
        (0.5, 0.5, 0.5, 1.0),
        (1.0, 1.0, 0.99, 0.0),
    ],
)
def test_a_weight_comes_in_between_two_shares_of_the_run(
    start: float, end: float, progress: float, share: float
) -> None:
    assert Ramp(start=start, end=end)(progress) == pytest.approx(share)


@pytest.mark.parametrize("ramp", [(0.5, 0.4), (-0.1, 0.5), (0.5, 1.1)])
def test_a_ramp_that_is_none_is_refused_in_one_line(ramp: tuple[float, float]) -> None:
    start, end = ramp
    with pytest.raises(UserError, match=f"from {start} to {end}; set 0 <= ramp.start"):
        Ramp(start=start, end=end)
