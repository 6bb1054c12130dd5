"""Between a study and its trials: which comes next, and what becomes of it.

It knows neither Ray nor threads. All that it decides follows from what the study holds,
so a driver that was killed is followed by one that decides the same.
"""

from collections.abc import Callable, Sequence

from rrl_dist.core.errors import UserError
from rrl_dist.tune.aims import Aims, feasible
from rrl_dist.tune.record import Asked, Outcome
from rrl_dist.tune.rules import Rule
from rrl_dist.tune.study import Study
from rrl_dist.tune.trial import Report

# Trials that fail one after another before any has ended well: what is wrong is wrong
# with all of them.
_HOPELESS = 3


class Conductor:
    """Hands out the trials of a study.

    Args:
        study: open, with no other driver.
        rule: that ends trials early; what the study knows of earlier trials is told to
            it here.
        aims: what trials are measured by.
        notify: told a line for each trial that ends.
    """

    def __init__(
        self, study: Study, rule: Rule, aims: Aims, notify: Callable[[str], None]
    ) -> None:
        self.study, self.rule, self.aims, self.notify = study, rule, aims, notify
        self._left = list(study.left())
        self._failed, self._any_good = 0, False
        self._hopeless: str | None = None
        self._replay()

    def _replay(self) -> None:
        """What was seen and told before, in its order."""
        records = {record.number: record for record in self.study.trials()}
        complete = {n for n, r in records.items() if r.state == "complete"}
        finals = {(n, records[n].looks[-1]) for n in complete if records[n].looks}
        gone: dict[int, list[int]] = {}  # by the looks that came before
        for number, record in records.items():
            if _is_no_measure(record.state, record.violations):
                gone.setdefault(record.after, []).append(number)
        for place, (number, look) in enumerate(self.study.looks()):
            self._forget(gone.pop(place, []))
            if (number, look) in finals:
                self.rule.ended(number, look)
            else:
                self.rule.look(number, look)
        for numbers in gone.values():
            self._forget(numbers)
        self._any_good = any(
            r.state in ("complete", "pruned") for r in records.values()
        )

    def _forget(self, numbers: Sequence[int]) -> None:
        for number in numbers:
            self.rule.forget(number)

    def next(self) -> Asked | None:
        """The next trial: one that an earlier driver left, or a new one; None when
        there is none to begin."""
        if self._hopeless is not None:
            return None
        if self._left:
            return self._left.pop(0)
        return self.study.ask()

    def waiting(self) -> bool:
        """Whether there is a next trial."""
        asked = self.next()
        if asked is not None:
            self._left.insert(0, asked)
        return asked is not None

    def heard(self, number: int, report: Report) -> str | None:
        """Note a trial's news; returns why it is to end here, or None.

        Raises:
            UserError: the trial does not report what the sweep is after.
        """
        for look in report.looks:
            self.study.look(number, look)
            why = self.rule.look(number, look)
            if why is not None and not report.done:
                self.ended(number, Outcome.pruned(why, report.seconds))
                return why
        if report.done:
            if report.final is not None:
                self.study.look(number, report.final)
            if report.measured is not None:
                self.rule.ended(number, report.final)
            self.ended(number, self._outcome(report))
        return None

    def ended(self, number: int, outcome: Outcome) -> None:
        """Note what came of a trial; of one that has ended, nothing."""
        if not self.study.tell(number, outcome):
            return
        self.notify(f"trial {number}: {outcome}")
        if _is_no_measure(outcome.state, outcome.violations):
            self.rule.forget(number)
        if outcome.state != "failed":
            self._any_good, self._failed = True, 0
            return
        self._failed += 1
        if self._failed >= _HOPELESS and not self._any_good:
            self._hopeless = outcome.why

    def check(self) -> None:
        """Tell that trials were given up.

        Raises:
            UserError: if they were.
        """
        if self._hopeless is not None:
            raise UserError(
                f"{self._failed} trials failed one after another and none went well, "
                f"the last: {self._hopeless}"
            )

    def _outcome(self, report: Report) -> Outcome:
        found = report.measured
        if found is None:
            return Outcome.failed(report.failed or "it was stopped", report.seconds)
        return Outcome.complete(
            self.aims.values(found),
            self.aims.violations(found, failed=report.masked),
            found,
            report.masked,
            report.seconds,
        )


def _is_no_measure(state: str, violations: Sequence[float]) -> bool:
    """Whether others are not to be measured against a trial: it failed, or its
    robustness is not to be believed."""
    return state == "failed" or not feasible(violations)
