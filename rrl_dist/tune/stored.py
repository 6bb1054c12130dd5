"""How a study of Optuna keeps what a sweep knows of its trials."""

from collections.abc import Iterator, Mapping
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from rrl_dist.tune.dimension import Value
from rrl_dist.tune.record import Ended, Outcome, Record, outcome_from_json
from rrl_dist.tune.rules import Look

# User attributes of a trial.
SETTINGS, OUTCOME, LOOK = "settings", "outcome", "look:"
# Of a frozen configuration, what does not set it apart from another.
CHOICES = "choices"
ENDS: dict[TrialState, Ended] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
# Of all that were asked for; Optuna's others only wait.
BEGUN = (TrialState.RUNNING, *ENDS)


def records_of(study: Study) -> list[Record]:
    """Of all trials that were asked for, by growing number."""
    trials = study.get_trials(deepcopy=False, states=BEGUN)
    return [_record(trial) for trial in trials]


def _record(trial: FrozenTrial) -> Record:
    outcome = _outcome(trial)
    settings: dict[str, Value] = trial.user_attrs.get(SETTINGS, {})
    looks = sorted((look for _, look in looks_of(trial)), key=lambda look: look.step)
    started, ended = trial.datetime_start, trial.datetime_complete
    return Record(
        number=trial.number,
        state=outcome.state if trial.state.is_finished() else "running",
        settings=settings,
        values=outcome.values,
        violations=outcome.violations,
        measured=outcome.measured,
        masked=outcome.masked,
        looks=tuple(looks),
        why=outcome.why,
        seconds=outcome.seconds,
        after=outcome.after,
        # Optuna keeps local time without its zone.
        started=None if started is None else started.astimezone(),
        ended=None if ended is None else ended.astimezone(),
    )


def _outcome(trial: FrozenTrial) -> Outcome:
    """Empty while it runs. One that a person has ended, as the dashboard lets them, has
    no more than Optuna's own fields."""
    if not trial.state.is_finished():
        return Outcome("failed")
    if OUTCOME in trial.user_attrs:
        return outcome_from_json(trial.user_attrs[OUTCOME])
    values = trial.values if trial.state == TrialState.COMPLETE else ()
    return Outcome(ENDS[trial.state], tuple(values), why="ended by hand")


def looks_of(trial: FrozenTrial) -> Iterator[tuple[int, Look]]:
    """With their places in the order of record, over all trials."""
    for key, value in trial.user_attrs.items():
        if key.startswith(LOOK):
            order, *numbers = value
            yield order, Look(int(key.removeprefix(LOOK)), *numbers)


def set_apart(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Dotted keys of two frozen configurations that differ."""
    a, b = ({k: v for k, v in one.items() if k != CHOICES} for one in (mine, theirs))
    return [*differences(a, b)]


def differences(mine: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """Dotted keys of two JSON values that differ."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        for key in [*mine, *(key for key in theirs if key not in mine)]:
            here = f"{path}.{key}" if path else key
            if key not in mine or key not in theirs:
                yield here
            else:
                yield from differences(mine[key], theirs[key], here)
    elif mine != theirs or isinstance(mine, bool) != isinstance(theirs, bool):
        yield path
