from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrl_dist.core.aggregate import wilson
from rrl_dist.tune.masking import CHECKS, masking_checks, signs

COUNT, CLASSES = 360, 10
EPS = 0.05


def share(value: float, count: int = COUNT) -> dict[str, Any]:
    return wilson(round(value * count), count).as_dict()


def curve(*points: tuple[float, float]) -> list[dict[str, Any]]:
    return [{"eps": eps, **share(value)} for eps, value in points]


def entry(
    points: Sequence[tuple[float, float]] = (), clean: float = 0.95, **parts: float
) -> dict[str, Any]:
    """Of components named by attack, in Linf 0.05."""
    own = {f"{k.replace('_', '-')}-linf@0.05": share(v) for k, v in parts.items()}
    return {"components": {"clean": share(clean), **own}, "curve": curve(*points)}


def in_turn(*steps: tuple[str, float], count: int = COUNT) -> dict[str, Any]:
    after = [{"attack": name, **share(value, count)} for name, value in steps]
    whole = {**share(steps[-1][1], count), "after": after}
    return {"components": {"clean": share(0.95), "autoattack-linf@0.05": whole}}


def masked(found: dict[str, Any], name: str) -> bool | None:
    """None where the check cannot be made."""
    sign = signs(found, CLASSES).get(name)
    assert sign is None or "\n" not in sign.line
    return None if sign is None else sign.masked


@given(st.lists(st.integers(0, COUNT), min_size=2, max_size=8), st.randoms())
def test_a_rise_is_masked_only_if_two_intervals_lie_apart(
    counts: list[int], random: Any
) -> None:
    points = [(0.01 * place, right / COUNT) for place, right in enumerate(counts)]
    found = entry(points, pgd20=0.5)
    own = found["curve"]
    apart = any(
        own[j]["low"] > own[i]["high"] and own[j]["low"] > 1 / CLASSES
        for j in range(len(own))
        for i in range(j)
    )
    assert masked(found, "monotone") == apart
    random.shuffle(found["curve"])
    assert masked(found, "monotone") == apart
    points = list(zip([eps for eps, _ in points], sorted(counts)[::-1], strict=True))
    falling = [(eps, right / COUNT) for eps, right in points]
    assert masked(entry(falling, pgd20=0.5), "monotone") is False


def test_a_rise_is_told_with_its_numbers() -> None:
    rising = entry([(0.0, 0.95), (0.025, 0.3), (0.05, 0.7)], pgd20=0.7)
    (line,) = masking_checks(rising, CLASSES)
    assert line == (
        "accuracy rises with the radius, from 0.3 [0.255, 0.349] at eps 0.025 to "
        "0.7 [0.651, 0.745] at 0.05"
    )


@pytest.mark.parametrize(
    ("square", "expected"), [(0.1, True), (0.45, False), (0.5, False), (0.9, False)]
)
def test_square_beyond_the_best_gradient_attacks_interval(
    square: float, expected: bool
) -> None:
    """The best of them counts, not one that is weak."""
    assert masked(entry(pgd20=0.9, apgd_ce=0.5, square=square), "black_box") == expected


def test_images_made_on_another_classifier_see_less_too() -> None:
    found = entry(pgd20=0.6, mi_fgsm10=0.65)
    assert masked(found, "black_box") is None
    found["components"]["mi-fgsm10-from-simclr-linf@0.05"] = share(0.2)
    assert masked(found, "black_box") is True
    (line,) = masking_checks(found, CLASSES)
    assert line.startswith("mi-fgsm10-from-simclr-linf@0.05 leaves 0.2 [")
    assert "pgd20-linf@0.05 0.6 [" in line


@pytest.mark.parametrize(
    ("broken", "count", "expected"),
    [
        *((0, 360, False), (2, 360, False), (3, 360, True), (20, 360, True)),
        *((20, 10_000, False), (40, 10_000, True)),
    ],
)
def test_square_last_in_turn_breaks_more_than_its_tolerance(
    broken: int, count: int, expected: bool
) -> None:
    before = 0.5 + broken / count
    steps = [("clean", 0.95), ("apgd-ce", 0.7), ("fab-t", before), ("square", 0.5)]
    assert masked(in_turn(*steps, count=count), "black_box") == expected


def test_square_before_others_says_nothing() -> None:
    order = [("clean", 0.95), ("square", 0.5), ("apgd-ce", 0.1)]
    assert masked(in_turn(*order), "black_box") is None
    assert masked(in_turn(("clean", 0.95), ("square", 0.5)), "black_box") is None
    assert masked(in_turn(("clean", 0.95), ("apgd-ce", 0.5)), "black_box") is None


@pytest.mark.parametrize(
    ("eps", "value", "expected"),
    [(0.5, 0.3, True), (0.5, 0.11, False), (0.75, 0.0, False), (0.2, 0.9, None)],
)
def test_an_attack_that_reaches_grey_leaves_no_more_than_guessing(
    eps: float, value: float, expected: bool | None
) -> None:
    """Four times the ball is far, but a classifier may be right there."""
    points = [(0.0, 0.95), (EPS, 0.9), (eps, value)]
    assert masked(entry(points, pgd20=0.9), "unbounded") is expected


def test_what_reaches_grey_is_not_known_in_another_norm() -> None:
    found = entry([(0.0, 0.95), (0.5, 0.9)])
    found["components"]["pgd20-l2@0.5"] = share(0.9)
    assert masked(found, "unbounded") is None


@pytest.mark.parametrize(
    ("clean", "expected"), [(0.1, True), (0.0, True), (0.12, True), (0.2, False)]
)
def test_a_collapsed_encoder_guesses(clean: float, expected: bool) -> None:
    assert masked(entry(clean=clean), "guessing") is expected


@pytest.mark.parametrize(
    "found", [entry(), entry(pgd20=0.5), {"components": {}, "curve": []}]
)
def test_a_check_that_cannot_be_made_is_not_failed(found: dict[str, Any]) -> None:
    assert {*signs(found, CLASSES)} <= {"guessing"}
    assert masking_checks(found, CLASSES) == []
    assert masking_checks({"components": found["components"]}, CLASSES) == []


def honest(seed: int, *, rate: float, misses: float, count: int) -> dict[str, Any]:
    """A classifier whose images each have a radius; each attack misses some of what it
    could break, each time other images. No radius is as large as the grey image is far,
    and of an image that is wrong itself it is 0."""
    random = np.random.default_rng(seed)
    radius = random.exponential(rate, count).clip(max=0.49)
    radius *= random.random(count) < 0.9

    def left(eps: float, missed: float) -> dict[str, Any]:
        found = (random.random(count) >= missed) | (radius == 0)
        broken = (radius < eps) & found
        return wilson(int((~broken).sum()), count).as_dict()

    radii = EPS * np.array([0.25, 0.5, 0.75, 1.0, 1.5, 10.0])
    clean = wilson(int((radius > 0).sum()), count).as_dict()
    return {
        "components": {
            "clean": clean,
            "pgd20-linf@0.05": left(EPS, misses),
            "apgd-ce-linf@0.05": left(EPS, misses / 2),
            "square-linf@0.05": left(EPS, misses),
        },
        "curve": [
            {"eps": 0.0, **clean},
            *({"eps": float(eps), **left(eps, misses)} for eps in radii),
        ],
    }


def test_honest_classifiers_seldom_show_a_sign() -> None:
    """Whose attacks are imperfect, but not misled: less than one in 1,000."""
    alarms = []
    for rate, count in product((0.01, 0.03, 0.05, 0.1, 0.2), (64, 360, 2000)):
        for seed in range(200):
            found = honest(seed, rate=rate, misses=0.05, count=count)
            assert {*signs(found, CLASSES)} == {*CHECKS}
            alarms.append(bool(masking_checks(found, CLASSES)))
    assert np.mean(alarms) < 1e-3
