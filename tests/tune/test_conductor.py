"""What becomes of trials, and that a driver which is killed at any point is followed
by one that decides the same."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rrl_dist.core.errors import UserError
from rrl_dist.tune.aims import Aim, Aims, Estimate
from rrl_dist.tune.asha import Asha
from rrl_dist.tune.conductor import Conductor
from rrl_dist.tune.intervals import Intervals
from rrl_dist.tune.record import Asked, Record
from rrl_dist.tune.rules import Both, Look
from rrl_dist.tune.study import Study
from rrl_dist.tune.trial import Report
from tests.tune.small import came_of
from tests.tune.sweeps import study_of

AIMS = Aims((Aim("robust", True),), {})
STEPS = (1, 2, 3, 4)
# Probes of trials by number; the last is after the last step.
CURVES = {
    0: (0.50, 0.55, 0.60, 0.65),
    1: (0.95, 0.95, 0.95, 0.95),  # masked
    2: (0.60, 0.62, 0.64, 0.70),
    3: (0.99, 0.99, 0.99, 0.99),  # fails at its end
    4: (0.61, 0.63, 0.66, 0.71),
    5: (0.10, 0.10, 0.10, 0.10),
    6: (0.62, 0.64, 0.67, 0.72),
    7: (0.40, 0.60, 0.70, 0.80),
}
MASKED, FAILS = 1, 3


class KilledError(BaseException):
    """The driver is gone."""


def look(number: int, place: int) -> Look:
    value = CURVES[number][place]
    return Look(STEPS[place], value, max(value - 0.05, 0), min(value + 0.05, 1), 400)


def reports(number: int) -> Iterator[Report]:
    """Of a trial that is begun, or gone on with: all its probes come again."""
    for place in range(len(STEPS) - 1):
        yield Report((look(number, place),), seconds=float(place))
    if number == FAILS:
        yield Report(done=True, failed="step 4: the loss is NaN", seconds=4.0)
        return
    final = look(number, -1)
    measured = {"robust": Estimate(final.value)}
    masked = ("a line",) if number == MASKED else ()
    yield Report(final=final, done=True, measured=measured, masked=masked, seconds=4.0)


def rule() -> Both:
    return Both(rules=(Intervals(alpha=0.05, looks=100, grace=1), Asha(grace=1, eta=2)))


def drive(study: Study) -> None:
    conductor = Conductor(study, rule(), AIMS, print)
    while (asked := conductor.next()) is not None:
        for report in reports(asked.number):
            if conductor.heard(asked.number, report) is not None or report.done:
                break
    conductor.check()


class Dying:
    """Kills its process before or after the n-th write of a study."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, at: int, *, after: bool
    ) -> None:
        self.left = at
        for name in ("ask", "look", "tell"):
            monkeypatch.setattr(Study, name, self._around(getattr(Study, name), after))

    def _around(self, write: Callable[..., Any], after: bool) -> Callable[..., Any]:
        def called(study: Study, *given: Any) -> Any:
            self.left -= 1
            if self.left == 0 and not after:
                raise KilledError
            found = write(study, *given)
            if self.left == 0:
                raise KilledError
            return found

        return called


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    with study_of(tmp_path_factory.mktemp("u") / "study.db", trials=8) as study:
        drive(study)
        return study.trials()


def test_each_trial_ends_as_it_should(undisturbed: list[Record]) -> None:
    states = {record.number: record.state for record in undisturbed}
    assert states[0] == "complete"
    assert (states[FAILS], undisturbed[FAILS].looks[-1].step) == ("failed", 3)
    assert undisturbed[MASKED].state == "complete"
    assert not undisturbed[MASKED].feasible
    assert states[5] == "pruned"
    assert "complete" in {states[4], states[6]}


def test_nobody_is_measured_against_a_trial_that_failed_or_is_masked(
    undisturbed: list[Record],
) -> None:
    """Both stood far above all others while they ran."""
    assert undisturbed[2].state == "complete"
    assert undisturbed[4].state == "complete"


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("at", [1, 2, 5, 9, 14, 17, 20, 23, 26, 29])
def test_a_driver_that_is_killed_at_a_write_is_followed_by_one_that_decides_the_same(
    at: int,
    after: bool,
    undisturbed: list[Record],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        dying = Dying(patched, at, after=after)
        with (
            pytest.raises(KilledError),
            study_of(tmp_path / "study.db", trials=8) as study,
        ):
            drive(study)
        assert dying.left == 0
    with study_of(tmp_path / "study.db", trials=8) as study:
        drive(study)
        found = study.trials()
    assert came_of(found) == came_of(undisturbed)


def test_a_trial_that_has_ended_is_not_told_again(tmp_path: Path) -> None:
    lines: list[str] = []
    with study_of(tmp_path / "study.db", trials=1) as study:
        conductor = Conductor(study, rule(), AIMS, lines.append)
        asked = conductor.next()
        assert isinstance(asked, Asked)
        (*_, last) = reports(0)
        conductor.heard(0, last)
        conductor.heard(0, last)
        assert len(lines) == 1
        assert conductor.next() is None


def test_failures_alone_end_the_sweep(tmp_path: Path) -> None:
    with study_of(tmp_path / "study.db", trials=8) as study:
        conductor = Conductor(study, rule(), AIMS, print)
        numbers = []
        while (asked := conductor.next()) is not None:
            numbers.append(asked.number)
            conductor.heard(asked.number, Report(done=True, failed="no memory"))
        assert numbers == [0, 1, 2]
        with pytest.raises(UserError, match=r"3 trials failed .*, the last: no memory"):
            conductor.check()
