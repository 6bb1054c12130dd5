import pytest

from rrl_dist.core.errors import UserError
from rrl_dist.training.precision import LossScale, check_clip


def test_the_scale_halves_at_once_and_doubles_with_patience() -> None:
    scale = LossScale(8.0)
    scale.note(finite=False)
    assert scale.value == 4.0
    for _ in range(LossScale.patience - 1):
        scale.note(finite=True)
    assert scale.value == 4.0
    scale.note(finite=True)
    assert scale.value == 8.0


def test_an_overflow_begins_the_patience_anew_and_a_checkpoint_keeps_it() -> None:
    scale = LossScale(8.0)
    for _ in range(LossScale.patience - 1):
        scale.note(finite=True)
    other = LossScale()
    other.load(scale.state())
    other.note(finite=True)
    assert other.value == 16.0
    scale.note(finite=False)
    scale.note(finite=True)
    assert scale.value == 4.0


def test_a_gradient_that_no_scale_helps_is_told() -> None:
    scale = LossScale(2.0)
    scale.note(finite=False)
    with pytest.raises(FloatingPointError, match="not finite at any loss scale"):
        scale.note(finite=False)


@pytest.mark.parametrize("value", [0, -1.0, float("nan")])
def test_a_limit_that_stops_all_learning_is_refused(value: float) -> None:
    with pytest.raises(UserError, match=r"optim\.clip_grad=.*; set it above 0"):
        check_clip(value)
    check_clip(None)
    check_clip(0.5)
