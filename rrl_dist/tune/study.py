"""A sweep's trials in a database: what was asked, seen and told outlives its driver.

All that is to be known is in the database after each call, and a trial's settings are a
function of that and of its number. So a driver that was killed at any point is followed
by one that goes on as if nothing had been.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.pruners import NopPruner
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial, TrialState

from rrl_dist.core.errors import UserError
from rrl_dist.tune.database import Address, open_storage, told
from rrl_dist.tune.hold import hold
from rrl_dist.tune.record import (
    Asked,
    Outcome,
    Record,
    best,
    front,
    outcome_to_json,
)
from rrl_dist.tune.rules import Look
from rrl_dist.tune.samplers import check_sampler, make_sampler
from rrl_dist.tune.space import Space
from rrl_dist.tune.stored import (
    BEGUN,
    ENDS,
    LOOK,
    OUTCOME,
    SETTINGS,
    looks_of,
    records_of,
    set_apart,
)

_FROZEN = "frozen"  # user attribute of the study
_STATES = {end: state for state, end in ENDS.items()}
_SHOWN = 5  # keys of a configuration that differ


class Study:
    """One sweep's trials. It is of one driver at a time: another one is refused.

    Args:
        address: a file, `sqlite:///FILE`, or `postgresql://USER:PASSWORD@HOST/DATABASE`.
        name: of the sweep; a database may hold several.
        maximize: of each aim, whether more is better.
        space: what is drawn; its starting points are the first trials, but of a grid.
        sampler: as `check_sampler` takes it.
        seed: of all draws.
        trials: at most, those that failed included.
        frozen: the configuration, a JSON value, all of the above included.

    Raises:
        UserError: no such sampler; the database cannot be used; another driver has the
            sweep; it has another configuration under this name. Later calls: the
            database cannot be used.
    """

    def __init__(
        self,
        address: str | Path,
        name: str,
        *,
        maximize: Sequence[bool],
        space: Space,
        sampler: Mapping[str, Any],
        seed: int,
        trials: int,
        frozen: Mapping[str, Any],
    ) -> None:
        check_sampler(sampler, aims=len(maximize))
        grid = sampler["name"] == "grid"
        fixed = space.grid(sampler["points"]) if grid else space.starts
        self.name, self.maximize, self._space = name, tuple(maximize), space
        self._limit = min(trials, len(fixed)) if grid else trials
        # CMA-ES knows no constraints: an infeasible trial is kept from it, and it draws
        # until a generation is full.
        self._hides_infeasible = sampler["name"] == "cmaes"
        self._address = Address(address)
        self._storage = open_storage(self._address)
        self._let_go: Callable[[], None] | None = None
        try:
            with told(self._address):
                self._let_go = hold(self._address, self._storage, name)
                self._study = self._opened(
                    make_sampler(sampler, seed=seed, fixed=fixed)
                )
                self._id = self._storage.get_study_id_from_name(name)
                self._claim(frozen)
                self._looks = sum(len(r.looks) for r in self.trials())
        except BaseException:
            self.close()
            raise

    def _opened(self, sampler: BaseSampler) -> optuna.Study:
        """One that is there is not made once more, which would take a write."""
        if self.name not in {s.study_name for s in self._storage.get_all_studies()}:
            optuna.create_study(
                storage=self._storage,
                study_name=self.name,
                directions=["maximize" if up else "minimize" for up in self.maximize],
            )
        return optuna.load_study(
            storage=self._storage,
            study_name=self.name,
            sampler=sampler,
            pruner=NopPruner(),
        )

    def _claim(self, frozen: Mapping[str, Any]) -> None:
        """Freeze the configuration, or hold the one there is against it."""
        mine = json.loads(json.dumps(frozen, allow_nan=False))
        attributes = self._study.user_attrs
        if _FROZEN not in attributes:
            if self._study.get_trials(deepcopy=False):
                raise UserError(
                    f"{self._address.shown} has a study {self.name} that is no sweep; "
                    "choose another name="
                )
            self._study.set_user_attr(_FROZEN, mine)
            return
        wrong = set_apart(mine, attributes[_FROZEN])
        if wrong:
            more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
            raise UserError(
                f"{self._address.shown} holds a sweep {self.name} with another "
                f"{', '.join(wrong[:_SHOWN])}{more}; choose another name=, or give "
                f"name={self.name} alone to go on as it was begun"
            )

    def left(self) -> list[Asked]:
        """Trials that have no end, by growing number: of a driver that is gone if this
        is called first, as it must be, before `ask`."""
        with told(self._address):
            running = self._study.get_trials(
                deepcopy=False, states=(TrialState.RUNNING,)
            )
            return [self._asked_before(trial) for trial in running]

    def _asked_before(self, trial: FrozenTrial) -> Asked:
        if SETTINGS in trial.user_attrs:
            return Asked(trial.number, trial.user_attrs[SETTINGS])
        return self._drawn(Trial(self._study, self._trial_id(trial.number)))

    def _drawn(self, trial: Trial) -> Asked:
        settings = self._space.draw(trial)
        trial.set_user_attr(SETTINGS, settings)
        return Asked(trial.number, settings)

    def ask(self) -> Asked | None:
        """A new trial; None when there are as many as there may be."""
        with told(self._address):
            begun = self._study.get_trials(deepcopy=False, states=BEGUN)
            if len(begun) >= self._limit:
                return None
            return self._drawn(self._study.ask())

    def look(self, number: int, look: Look) -> bool:
        """Note a probe of a trial that runs. One of a step that was noted before, or
        of a trial that has ended, changes nothing and returns False."""
        with told(self._address):
            trial = self._trial_id(number)
            found = self._storage.get_trial(trial)
            key = f"{LOOK}{look.step}"
            if found.state != TrialState.RUNNING or key in found.user_attrs:
                return False
            # Optuna takes these of one aim alone. The probe is an accuracy: of an aim
            # that is to be small it says nothing.
            if self.maximize == (True,):
                self._storage.set_trial_intermediate_value(trial, look.step, look.value)
            value = [self._looks, look.value, look.low, look.high, look.count]
            self._storage.set_trial_user_attr(trial, key, value)
            self._looks += 1
            return True

    def looks(self) -> list[tuple[int, Look]]:
        """All probes with the numbers of their trials, in the order of record."""
        with told(self._address):
            trials = self._study.get_trials(deepcopy=False)
            found = [
                (order, t.number, look) for t in trials for order, look in looks_of(t)
            ]
        return [(number, look) for _, number, look in sorted(found, key=lambda f: f[0])]

    def tell(self, number: int, outcome: Outcome) -> bool:
        """Note how a trial ended. Of a trial that has ended nothing changes, and False
        is returned: none is counted twice."""
        with told(self._address):
            trial = Trial(self._study, self._trial_id(number))
            if self._storage.get_trial(self._trial_id(number)).state.is_finished():
                return False
            noted = replace(outcome, after=self._looks)
            trial.set_user_attr(OUTCOME, outcome_to_json(noted))
            state = _STATES[outcome.state]
            infeasible = any(v > 0 for v in outcome.violations)
            if self._hides_infeasible:
                state = TrialState.PRUNED if infeasible else state
            else:
                _constrain(trial, outcome.violations)
            values = outcome.values if state == TrialState.COMPLETE else None
            self._study.tell(number, values, state)
            return True

    def trials(self) -> list[Record]:
        """All that were asked for, by growing number."""
        with told(self._address):
            return records_of(self._study)

    def best(self) -> Record | None:
        """See `rrl_dist.tune.record.best`."""
        return best(self.trials(), self.maximize)

    def front(self) -> list[Record]:
        """See `rrl_dist.tune.record.front`."""
        return front(self.trials(), self.maximize)

    def close(self) -> None:
        """Let go of the sweep and of the database's connections."""
        if self._let_go is not None:
            self._let_go()
        _close(self._storage)

    def _trial_id(self, number: int) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._id, number)


def read_study(address: str | Path, name: str) -> tuple[dict[str, Any], list[Record]]:
    """The frozen configuration and the trials of a sweep, while it runs or after.

    Raises:
        UserError: there is none, or the database cannot be used.
    """
    place = Address(address)
    missing = f"{place.shown} has no sweep {name}; check name= and sweep.study="
    if place.file is not None and not place.file.exists():
        raise UserError(missing)
    storage = open_storage(place)
    try:
        with told(place):
            names = {study.study_name for study in storage.get_all_studies()}
            study = (
                optuna.load_study(study_name=name, storage=storage)
                if name in names
                else None
            )
            if study is None or _FROZEN not in study.user_attrs:
                raise UserError(missing)
            return study.user_attrs[_FROZEN], records_of(study)
    finally:
        _close(storage)


def _close(storage: optuna.storages.RDBStorage) -> None:
    storage.remove_session()
    storage.engine.dispose()


def _constrain(trial: Trial, violations: Sequence[float]) -> None:
    """Set constraints, but those that a killed driver has set."""
    known = trial.constraints
    for place, violation in enumerate(violations):
        if str(place) not in known:
            trial.set_constraint(str(place), violation)
