"""Calibration errors: what they are, that sums add up, and what intervals hold."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torchmetrics.classification import MulticlassCalibrationError

from rrl_dist.core.calibration import BINS, RESAMPLES, Calibration

Real = NDArray[np.float64]
NORMS = ("l1", "l2", "max")


def errors_of(confidence: Any, correct: Any, index: Any = None) -> list[float]:
    """ECE, RMS and MCE."""
    index = np.arange(len(confidence)) if index is None else np.asarray(index)
    made = Calibration.of(index, np.asarray(confidence), np.asarray(correct))
    found = made.errors(len(index))
    return [found.ece.value, found.rms.value, found.mce.value]


def literally(confidence: list[float], correct: list[bool]) -> list[float]:
    """The formulas, bin by bin and output by output."""
    gaps, shares = [], []
    for place in range(BINS):
        low, high = place / BINS, (place + 1) / BINS
        inside = [
            (c, right)
            for c, right in zip(confidence, correct, strict=True)
            if low <= c < high or (c == 1 and place == BINS - 1)
        ]
        if inside:
            accuracy = sum(right for _, right in inside) / len(inside)
            gaps.append(abs(accuracy - sum(c for c, _ in inside) / len(inside)))
            shares.append(len(inside) / len(confidence))
    pairs = list(zip(shares, gaps, strict=True))
    mean_square = sum(share * gap**2 for share, gap in pairs)
    return [sum(s * g for s, g in pairs), math.sqrt(mean_square), max(gaps)]


# Off the edges, where the last digit says which bin it is.
confidences = st.floats(0, 1, width=32).filter(
    lambda c: c == 1 or abs(c * BINS - round(c * BINS)) > 1e-6
)
outputs = st.lists(st.tuples(confidences, st.booleans()), min_size=1, max_size=60)


@settings(deadline=None, max_examples=60)
@given(outputs=outputs)
def test_they_are_the_formulas(outputs: list[tuple[float, bool]]) -> None:
    confidence, correct = (list(column) for column in zip(*outputs, strict=True))
    expected = literally(confidence, correct)
    assert errors_of(confidence, correct) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("scale", [0.5, 2.0, 6.0])
def test_they_are_those_of_torchmetrics(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = scale * torch.randn(2000, 10, generator=generator)
    y = torch.randint(10, (2000,), generator=generator)
    p = logits.softmax(1)
    confidence, answers = p.max(1)
    assert float(confidence.max()) < 1  # see the next test
    expected = [float(MulticlassCalibrationError(10, 15, norm)(p, y)) for norm in NORMS]
    found = errors_of(confidence.double().numpy(), (answers == y).numpy())
    assert found == pytest.approx(expected, abs=1e-5)


def test_a_confidence_of_one_is_in_the_last_bin() -> None:
    """There 0.97 and 1 are one bin, whose error is their mean's; torchmetrics keeps
    1 apart, in a bin above the last, and tells another error."""
    p = torch.tensor([[1.0, 0.0], [0.97, 0.03]], dtype=torch.float64)
    y = torch.tensor([1, 0])
    confidence, correct = p.amax(1).numpy(), (p.argmax(1) == y).numpy()
    assert errors_of(confidence, correct) == pytest.approx([0.985 - 0.5] * 3)
    apart = (1 + 0.03) / 2
    theirs = float(MulticlassCalibrationError(2, 15, "l1")(p, y))
    assert theirs == pytest.approx(apart, abs=1e-6)
    made = Calibration.of(np.arange(2), confidence, correct)
    assert [one.count for one in made.bins()] == [0] * 14 + [2]


def test_nothing_is_lost_of_confidences_near_one() -> None:
    """All outputs of a sure and wrong classifier are in the last bin."""
    assert errors_of(np.ones(100), np.zeros(100, dtype=bool)) == [1, 1, 1]
    assert errors_of(np.ones(100), np.ones(100, dtype=bool)) == [0, 0, 0]


@settings(deadline=None, max_examples=40)
@given(outputs=outputs, draws=st.randoms(use_true_random=False))
def test_any_order_and_any_cut_have_the_same_sums(
    outputs: list[tuple[float, bool]], draws: Any
) -> None:
    rows = [(place, *one) for place, one in enumerate(outputs)]

    def of(some: list[tuple[int, float, bool]]) -> Calibration:
        index, confidence, correct = zip(*some, strict=True)
        return Calibration.of(np.array(index), np.array(confidence), np.array(correct))

    whole = of(rows)
    draws.shuffle(rows)
    cut = draws.randrange(len(rows))
    parts = [of(part) for part in (rows[:cut], rows[cut:]) if part]
    joined = parts[0] if len(parts) == 1 else parts[1] + parts[0]
    for name in ("count", "confidence", "correct"):
        assert np.array_equal(getattr(whole, name), getattr(joined, name))
    assert whole.errors(len(rows)) == joined.errors(len(rows))


def test_sums_of_more_images_than_are_done_at_a_time_are_exact() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(9000).astype(np.float32).astype(np.float64)
    made = Calibration.of(np.arange(9000), confidence, confidence > 0.5)
    assert made.count[0].sum() == 9000
    assert made.correct[0].sum() == (confidence > 0.5).sum()
    assert made.confidence[0].sum() / 2**38 == math.fsum(confidence)
    mean = made.count[1:].sum(1).mean() / 9000
    assert mean == pytest.approx(1, abs=4 / math.sqrt(9000 * RESAMPLES))


def test_outputs_of_one_image_are_weighted_alike() -> None:
    """Outputs twice are no more images: errors and intervals stay."""
    rng = np.random.default_rng(1)
    confidence, correct = rng.random(300), rng.random(300) < 0.5
    once = Calibration.of(np.arange(300), confidence, correct)
    both, one = (once + once).errors(300), once.errors(300)
    for name in ("ece", "rms", "mce"):
        twice, alone = getattr(both, name), getattr(one, name)
        ends = (alone.value, alone.low, alone.high)
        assert (twice.value, twice.low, twice.high) == pytest.approx(ends)


TRUTHS: dict[str, Callable[[Real], Real]] = {
    "calibrated": lambda c: c,
    "overconfident": lambda c: 0.7 * c,
    "guessing": lambda c: np.full_like(c, 0.1),
    "both": lambda c: np.clip(c + 0.1 * np.sin(9 * c), 0, 1),
}


def drawn(
    rng: np.random.Generator, truth: Callable[[Real], Real], n: int
) -> tuple[Real, NDArray[np.bool_]]:
    confidence = rng.beta(3, 1.5, n)
    return confidence, rng.random(n) < truth(confidence)


def test_of_many_calibrated_outputs_little_is_left() -> None:
    confidence, correct = drawn(np.random.default_rng(2), TRUTHS["calibrated"], 50_000)
    ece, rms, _ = errors_of(confidence, correct)
    assert 0 < ece < rms < 0.01


def test_of_few_images_they_come_out_too_high() -> None:
    """ECE of calibrated outputs, whose true error is 0: means of 60 samples."""
    rng, found = np.random.default_rng(5), {}
    for images in (70, 300):
        samples = [drawn(rng, TRUTHS["calibrated"], images) for _ in range(60)]
        found[images] = np.mean([errors_of(*sample)[0] for sample in samples])
    assert 0.04 < found[300] < 0.08 < found[70]


@pytest.mark.parametrize("name", TRUTHS)
def test_intervals_hold_the_true_error(name: str) -> None:
    """Of 60 samples of 300 images; the true one is of very many."""
    rng, trials, images = np.random.default_rng(3), 60, 300
    confidence = rng.beta(3, 1.5, 1_000_000)
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    surplus = np.bincount(bins, confidence - TRUTHS[name](confidence), BINS) / 1e6
    share = np.maximum(np.bincount(bins, minlength=BINS) / 1e6, 1e-9)
    true = {"ece": np.abs(surplus).sum(), "rms": np.sqrt((surplus**2 / share).sum())}
    true["mce"] = np.abs(surplus / share).max()
    held = dict.fromkeys(true, 0)
    for _ in range(trials):
        found = Calibration.of(np.arange(images), *drawn(rng, TRUTHS[name], images))
        errors = found.errors(images)
        for key, value in true.items():
            held[key] += getattr(errors, key).low <= value <= getattr(errors, key).high
    # Three standard deviations of 60 trials below 95 %.
    assert min(held.values()) >= 0.866 * trials, held


def test_intervals_get_narrower_with_more_images() -> None:
    widths = []
    for images in (100, 1600):
        sample = drawn(np.random.default_rng(4), TRUTHS["guessing"], images)
        ece = Calibration.of(np.arange(images), *sample).errors(images).ece
        assert ece.low < ece.value < ece.high
        widths.append(ece.high - ece.low)
    assert widths[1] < widths[0] / 3


@pytest.mark.parametrize("odd", [math.nan, -0.1, 1.1, math.inf])
def test_what_is_no_probability_is_refused(odd: float) -> None:
    with pytest.raises(ValueError, match=r"1 of 2 confidences are not in \[0, 1\]"):
        errors_of([0.5, odd], [True, False])


def test_of_no_outputs_there_is_no_error() -> None:
    with pytest.raises(ValueError, match="no outputs"):
        errors_of(np.zeros(0), np.zeros(0, dtype=bool), np.zeros(0, dtype=np.int64))
