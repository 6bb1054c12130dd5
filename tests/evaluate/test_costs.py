"""What an evaluation will take, told before it begins."""

from pathlib import Path

import pytest

from rrl_dist.core.storage import read_json
from rrl_dist.evaluate.costs import Forecast, duration
from rrl_dist.evaluate.grid import CLEAN, Link, Unit
from tests.evaluate.jobs import Job, made_of, run


@pytest.fixture
def few(job: Job) -> Job:
    """Four images, which fill an eighth of a call of the model."""
    return {**job, "limit": 4, "gallery": 0}


def test_passes_that_fill_calls_up_are_counted(few: Job, tmp_path: Path) -> None:
    evaluation = made_of(few, tmp_path)
    passes = evaluation.costs.left(evaluation.schedule).passes
    pgd, apgd = 6 + 4, 8 + 7  # forward and backward
    assert {link.name: count for link, count in passes.items()} == {
        CLEAN: 32,
        "pgd4-linf@0.03": 32 * pgd,
        "apgd-ce-linf@0.03": 32 * apgd,
        "pgd4-linf@0.015": 32 * pgd,
    }
    run(few, tmp_path)
    links = read_json(tmp_path / "units.json")["links"].values()
    taken = sum(link["forward"] + link["backward"] for link in links)
    told = sum(count or 0 for count in passes.values())
    assert 1 / 1.5 < taken / told < 1.5


def test_a_pass_of_units_that_are_not_full_is_not_dearer(
    few: Job, tmp_path: Path
) -> None:
    """What fills up is in the seconds of a unit, and in those of the units to come."""
    evaluation = made_of(few, tmp_path)
    schedule, pgd = evaluation.schedule, Link("pgd4-linf@0.03")
    schedule.restore(Unit(pgd, (0,), (0, 1, 2, 3)), (), 10.0)
    left = evaluation.costs.left(schedule)
    assert left.seconds[pgd] == 0
    assert left.seconds[Link("pgd4-linf@0.015")] == pytest.approx(10.0)
    assert left.seconds[Link("apgd-ce-linf@0.03")] == pytest.approx(15.0)


def test_less_than_a_minute_is_told_in_seconds() -> None:
    assert [duration(s) for s in (0, 0.04, 59.9, 60, 150)] == [
        "0.0 seconds",
        "<0.1 seconds",
        "59.9 seconds",
        "1.0 minutes",
        "2.5 minutes",
    ]
    link = Link(CLEAN)
    told = Forecast({link: 100.0}, {link: 90.0}).told(2)
    assert told.endswith("included: 1.5 device-minutes, 45.0 seconds on 2 workers")
    told = Forecast({link: 100.0}, {link: 3.0}).told(1)
    assert told.endswith("included: 3.0 device-seconds, 3.0 seconds on 1 worker")
