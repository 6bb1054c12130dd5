import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from rrl_dist.cli.app import CONFIGS
from rrl_dist.training.build import build
from rrl_dist.training.schedule import Schedule, Steps, WarmupCosine
from rrl_dist.training.stage import peak_lr

shares = st.floats(0, 1)


def configured(name: str) -> Schedule:
    """Of an optimizer's or a protocol's configuration."""
    config = OmegaConf.load(CONFIGS / f"{name}.yaml")
    plain = OmegaConf.to_container(config.get("optim", config).schedule)
    schedule: Schedule = build(plain)
    return schedule


def test_deacls_recipe_rises_for_10_of_100_epochs_and_then_falls() -> None:
    schedule = configured("optim/sgd")
    per_epoch = 390

    def rate(step: int) -> float:
        return schedule(step / per_epoch, epochs=100, peak=0.5)

    assert rate(0) == pytest.approx(0.003)
    for epoch in range(10):
        expected = 0.003 + (0.5 - 0.003) * epoch / 10
        assert rate(epoch * per_epoch) == pytest.approx(expected)
    assert rate(10 * per_epoch) == pytest.approx(0.5)
    assert rate(10 * per_epoch - 1) < 0.5
    for epoch in range(10, 101):
        expected = 0.25 * (1 + math.cos(math.pi * (epoch - 10) / 90))
        assert rate(epoch * per_epoch) == pytest.approx(expected, abs=1e-12)


@given(
    warmup=st.floats(0, 0.9),
    start=shares,
    end=shares,
    place=shares,
    epochs=st.floats(0.01, 1000),
    peak=st.floats(1e-4, 10),
)
def test_warm_up_and_half_a_cosine(
    warmup: float, start: float, end: float, place: float, epochs: float, peak: float
) -> None:
    schedule = WarmupCosine(warmup=warmup, start=start, end=end)
    found = schedule(place * epochs, epochs=epochs, peak=peak)
    if place * epochs < warmup * epochs:
        expected = start + (1 - start) * place / warmup
    else:
        phase = math.pi * (place - warmup) / (1 - warmup)
        expected = end + (1 - end) * (1 + math.cos(phase)) / 2
    assert found == pytest.approx(peak * expected, rel=1e-6, abs=1e-9)
    assert peak * min(start, end) * (1 - 1e-9) <= found <= peak * (1 + 1e-9)


def test_the_rate_stays_at_its_end_beyond_the_run() -> None:
    schedule = WarmupCosine(warmup=0.1, start=0.0, end=0.01)
    for epoch in (10.0, 10.5, 20.0):
        assert schedule(epoch, epochs=10, peak=2.0) == pytest.approx(0.02)


@pytest.mark.parametrize("per_epoch", [1, 3, 7, 97, 390])
def test_steps_fall_with_epochs_15_and_20_of_25(per_epoch: int) -> None:
    schedule = configured("protocol/slf")
    for step in range(25 * per_epoch):
        found = schedule(step / per_epoch, epochs=25, peak=0.1)
        expected = 0.1 if step < 15 * per_epoch else 0.01
        expected = expected if step < 20 * per_epoch else 0.001
        assert found == pytest.approx(expected), step


@pytest.mark.parametrize("per_epoch", [1, 7])
def test_a_whole_epoch_is_met_whatever_its_share_rounds_to(per_epoch: int) -> None:
    for epochs in range(1, 101):
        length = (epochs * per_epoch) / per_epoch
        for epoch in range(1, epochs + 1):
            schedule, step = Steps([epoch / epochs], 0.1), epoch * per_epoch
            before, after = (
                schedule(s / per_epoch, epochs=length, peak=1.0)
                for s in (step - 1, step)
            )
            assert (before, after) == (1.0, 0.1), (epoch, epochs)


def test_milestones_may_come_in_any_order_or_not_at_all() -> None:
    assert Steps([0.8, 0.6], 0.1)(7.0, epochs=10, peak=1.0) == pytest.approx(0.1)
    assert Steps([], 0.1)(9.9, epochs=10, peak=1.0) == 1.0


@pytest.mark.parametrize(("per", "expected"), [(None, 0.5), (256, 1.0), (512, 0.5)])
def test_the_peak_grows_with_the_batch_where_asked_for(
    per: int | None, expected: float
) -> None:
    assert peak_lr({"lr": 0.5, "lr_per": per}, 512) == pytest.approx(expected)
