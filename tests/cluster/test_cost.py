"""What cluster/README.md says that a run costs follows from what the run is."""

import re

import pytest

from tests.cluster.files import ROOT
from tests.composing import compose

IMAGES = 1_281_167  # of ImageNet's training set
RATE, DOLLARS = 16_621, 21.96  # published: see the page


@pytest.fixture(scope="module")
def page() -> str:
    text = (ROOT / "cluster/README.md").read_text()
    return text[text.index("## What an ImageNet run costs") :]


def number(page: str, row: str) -> float:
    """In the last cell of the row that begins so."""
    (line,) = [x for x in page.splitlines() if x.startswith(f"| {row}")]
    cell = line.strip("| ").split("|")[-1]
    return float(re.sub(r"[^\d.e]", "", cell.replace(" an hour", "")))


def test_the_passes_are_those_of_the_experiment(page: str) -> None:
    config = compose("run", "experiment=deacl_imagenet")
    arms = config["arms"]
    teacher = arms["moco"]["train"]["epochs"] * (2 * 3 + 2)
    steps = arms["deacl"]["objective"]["steps"]
    pupil = arms["deacl"]["train"]["epochs"] * (2 * steps + 2 * 3 + 1)
    heads = len(arms) * config["protocol"]["train"]["epochs"]
    assert number(page, "MoCo v2+ teacher") == teacher
    assert number(page, "DeACL") == pupil
    assert number(page, "two linear heads") == heads
    assert number(page, "sum") == teacher + pupil + heads
    kept = IMAGES * (1 - config["data"]["val_fraction"])
    assert number(page, "training images") == pytest.approx(kept, abs=1000)


def test_the_hours_and_dollars_follow_from_them(page: str) -> None:
    passes = number(page, "training images") * number(page, "sum")
    assert number(page, "passes, ") == pytest.approx(passes, rel=2e-3)
    assert number(page, "NVIDIA's rate on 8 A100") == RATE
    assert number(page, "passes a second") == 3 * RATE
    hours = passes / (3 * RATE) / 3600
    assert number(page, "hours at that rate") == pytest.approx(hours, abs=0.05)
    assert number(page, "hours at half") == pytest.approx(2 * hours, abs=0.1)
    assert number(page, "`p4d.24xlarge`") == DOLLARS
    assert number(page, "**GPUs") == pytest.approx(2 * hours * DOLLARS, abs=1)
    assert number(page, "at NVIDIA's rate") == pytest.approx(hours * DOLLARS, abs=1)
