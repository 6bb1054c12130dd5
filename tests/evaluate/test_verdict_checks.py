"""Each check of the verdict on evidence made by hand."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rrl_dist.evaluate.verdict import checks
from rrl_dist.evaluate.verdict.evidence import Evidence
from rrl_dist.evaluate.verdict.finding import Finding
from rrl_dist.evaluate.verdict.judge import found_checks, told_lines, verdict
from rrl_dist.evaluate.verdict.probes import Probes

COUNT, PROBED = 400, 64
MEASURED = ("still", "clean", "one", "many", "left")  # of right images
HONEST = Probes(
    index=list(range(PROBED)),
    right=[True] * 60 + [False] * 4,
    change=0.0,
    smallest=-9.0,
    largest=11.0,
    sums=0.7,
    differentiable=True,
    still=[False] * 60,
    clean=[0.1] * 60,
    one=[0.5] * 60,
    many=[0.6] * 60,
    radii=[0.1, 0.3, 1.0],
    left=[1] * 20 + [0] * 40,
    square=None,
    forward=12_000,
    backward=3_000,
)


def first(count: int, of: int = COUNT) -> Any:
    return np.arange(of) < count


def evidence(**changes: Any) -> Evidence:
    """Of a network that hides nothing: 400 images, 380 right, 200 of these broken along
    gradients. Fields of the probes may be named, too."""
    of_probes = {k: v for k, v in changes.items() if k in vars(HONEST)}
    own = {k: v for k, v in changes.items() if k not in of_probes}
    fields = {
        "probes": replace(HONEST, **of_probes),
        "index": np.arange(COUNT),
        "right": first(380),
        "white": first(200),
        "black": first(120),
        "transferred": first(90),
        "alone": True,
        "scale_free": False,
        "averaged": False,
        "curve": np.stack([first(100), first(200), first(300)]),
    }
    return Evidence(**{**fields, **own})


def seen(name: str, **changes: Any) -> Finding | None:
    return found_checks()[name](evidence(**changes))


def level(name: str, **changes: Any) -> str | None:
    found = seen(name, **changes)
    assert found is None or "\n" not in found.told + found.stronger
    return None if found is None else found.level.word


def test_a_check_is_a_file() -> None:
    (folder,) = checks.__path__
    files = {file.stem for file in Path(folder).glob("*.py")} - {"__init__"}
    assert set(found_checks()) == files
    assert len(files) == 7


def test_a_network_that_hides_nothing_passes() -> None:
    found = verdict(evidence())
    assert found["level"] == "pass"
    assert {check["level"] for check in found["checks"].values()} == {"ok"}
    assert {check["stronger"] for check in found["checks"].values()} == {None}
    assert set(found["checks"]) == set(found_checks())
    assert told_lines(found) == ["verdict: pass, of 7 checks"]
    assert (found["images"], found["forward"], found["backward"]) == (64, 12_000, 3_000)


def test_the_verdict_is_the_worst_of_the_checks_and_names_what_to_run() -> None:
    found = verdict(evidence(change=1e-4))
    assert found["level"] == "suspect"
    found = verdict(evidence(change=1e-4, still=[True] * 60))
    assert found["level"] == "fail"
    lines = told_lines(found)
    assert lines[0] == "verdict: fail, of 7 checks"
    assert lines[1].startswith("suspect, randomized: a logit changes by 0.0001")
    assert lines[2].startswith("fail, zero gradients: the gradient is 0 at 60 of 60")
    assert all("suite=autoattack" in line for line in lines[1:])
    assert told_lines(None) == []


@pytest.mark.parametrize(
    ("still", "expected"),
    [(0, "ok"), (1, "ok"), (2, "ok"), (4, "suspect"), (8, "fail"), (60, "fail")],
)
def test_zero_gradients(still: int, expected: str) -> None:
    flags = [True] * still + [False] * (60 - still)
    assert level("zero_gradients", still=flags) == expected


def test_logits_without_a_gradient_fail() -> None:
    nothing: dict[str, Any] = {key: [] for key in (*MEASURED, "radii")}
    assert level("zero_gradients", differentiable=False, **nothing) == "fail"
    for name in ("more_steps", "growing_radius"):
        assert level(name, differentiable=False, **nothing) is None


@pytest.mark.parametrize(
    ("change", "averaged", "expected"),
    [
        *((0.0, False, "ok"), (2e-6, False, "ok"), (1e-4, False, "suspect")),
        *((0.02, False, "fail"), (0.02, True, "suspect")),
    ],
)
def test_randomized_answers(change: float, averaged: bool, expected: str) -> None:
    assert level("randomized", change=change, averaged=averaged) == expected


@pytest.mark.parametrize(
    ("smallest", "largest", "sums", "expected"),
    [
        *((-9.0, 11.0, 0.7, "ok"), (-9.0, 0.0, 1e-4, "ok"), (0.0, 14.0, 0.5, "ok")),
        *((0.0, 100.0, 1e-7, "fail"), (0.0, 1.0, 0.5, "suspect")),
    ],
)
def test_probabilities(
    smallest: float, largest: float, sums: float, expected: str
) -> None:
    """The last but one is a softmax times a hundred, the last are sigmoids."""
    found = level("probabilities", smallest=smallest, largest=largest, sums=sums)
    assert found == expected


@pytest.mark.parametrize(
    ("only", "scale_free", "expected"),
    [
        *((0, False, "ok"), (10, False, "ok"), (20, False, "suspect")),
        *((40, False, "fail"), (1, True, "ok"), (5, True, "suspect")),
        (40, True, "fail"),
    ],
)
def test_what_is_broken_without_gradients_alone(
    only: int, scale_free: bool, expected: str
) -> None:
    """Of 380 right images; the gradients break many others."""
    black = first(120) | (np.arange(COUNT) >= 380 - only)
    found = level("black_box", black=black, scale_free=scale_free)
    assert found == expected


def test_black_box_better_than_white_box_fails_whatever_the_share() -> None:
    """Eight of 380 are 2 %; none is broken along gradients that it does not break."""
    strong = {"black": first(18), "white": first(10)}
    assert level("black_box", **strong) == "fail"
    # Asked only about what was left, it cannot have fewer.
    assert level("black_box", **strong, alone=False) == "ok"
    even = {"black": first(10), "white": first(18)}
    assert level("black_box", **even) == "ok"
    few = {"black": first(13), "white": first(10)}  # three wins in three say nothing
    assert level("black_box", **few) == "ok"


def test_images_that_are_wrong_themselves_count_for_nobody() -> None:
    black = first(120) | ~first(380)
    found = seen("black_box", black=black)
    assert found is not None
    assert found.told.startswith("0 of 380 right images")


def test_without_an_attack_in_the_suite_the_probes_stand_in() -> None:
    assert level("black_box", black=None) is None
    assert level("black_box", white=None) is None
    broken = [place >= 45 for place in range(60)]
    white = first(30)
    found = seen("black_box", black=None, white=white, square=broken)
    assert found is not None
    assert found.told == (
        "15 of 60 right images are broken without gradients alone, and 30 along "
        "gradients alone"
    )
    assert found.level.word == "fail"


@pytest.mark.parametrize(
    ("only", "others", "expected"),
    [
        *((0, 100, "ok"), (8, 100, "ok"), (20, 100, "suspect"), (40, 100, "fail")),
        *((12, 0, "fail"), (4, 0, "ok")),
    ],
)
def test_images_of_others(only: int, others: int, expected: str) -> None:
    theirs = (np.arange(COUNT) >= 380 - only) | first(50)
    own = first(50 + others)
    assert level("transfer", transferred=theirs, white=own) == expected
    assert level("transfer", transferred=None) is None


@pytest.mark.parametrize(
    ("unbroken", "expected"), [(0, "ok"), (2, "ok"), (4, "suspect"), (8, "fail")]
)
def test_accuracy_that_does_not_fall_to_zero(unbroken: int, expected: str) -> None:
    left = [3] * unbroken + [2] * (60 - unbroken)
    assert level("growing_radius", left=left) == expected


@pytest.mark.parametrize(
    ("back", "expected"), [(0, "ok"), (15, "ok"), (40, "suspect"), (120, "fail")]
)
def test_images_that_a_larger_radius_spares(back: int, expected: str) -> None:
    curve = np.stack([first(150), first(150) & ~first(back), first(300) & ~first(back)])
    assert level("growing_radius", curve=curve) == expected
    found = seen("growing_radius", curve=curve)
    assert found is not None
    assert f"; {back} of 380 are broken at one radius" in found.told
    assert level("growing_radius", curve=None) == "ok"


@pytest.mark.parametrize(
    ("still", "better", "expected"),
    [
        *((0, 0, "ok"), (4, 0, "ok"), (15, 0, "suspect"), (50, 0, "fail")),
        *((0, 5, "ok"), (0, 15, "suspect"), (0, 50, "fail")),
    ],
)
def test_loss_that_does_not_rise_with_steps(
    still: int, better: int, expected: str
) -> None:
    """Of 60 images: it stays at some, and one step does better at some."""
    many = [0.1] * still + [0.6] * (60 - still)
    one = [0.1] * still + [0.7] * better + [0.5] * (60 - still - better)
    assert level("more_steps", many=many, one=one) == expected


def test_a_classifier_that_is_never_right_is_not_judged() -> None:
    none: dict[str, Any] = {key: [] for key in MEASURED}
    made = evidence(**none)
    probes = replace(made.probes, right=[False] * PROBED)
    found = verdict(replace(made, probes=probes, right=first(0)))
    assert set(found["checks"]) == {"probabilities", "randomized"}
    assert found["level"] == "pass"
