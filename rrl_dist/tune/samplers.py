"""Samplers whose draws are a function of the study and of the trial's number.

A sampler of Optuna keeps its random state in memory: a sweep that was killed would go
on with other settings. Here each trial, and each name drawn by itself, has a sampler
with a seed of its own. All else a sampler knows (past trials, generations, the state of
CMA-ES) is in the study.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    NSGAIISampler,
    RandomSampler,
    TPESampler,
)
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from rrl_dist.core.errors import UserError
from rrl_dist.core.randomness import Key, stream
from rrl_dist.tune.dimension import Value

Make = Callable[[int], BaseSampler]
# What a sampler's configuration says besides its name.
_OPTIONS = {
    "tpe": ("startup", "candidates", "multivariate"),
    "nsga2": ("population", "crossover_prob", "swapping_prob", "mutation_prob"),
    "cmaes": ("startup", "population"),
    "random": (),
    "grid": ("points",),
}
# The least value; null is allowed where Optuna has a rule (mutation: 1 / dimensions;
# population of CMA-ES: 4 + 3 log(dimensions)).
_LEAST = {"startup": 0, "candidates": 1, "population": 2, "points": 1}
_OR_NULL = {("nsga2", "mutation_prob"), ("cmaes", "population")}


def check_sampler(sampler: Mapping[str, Any], *, aims: int) -> None:
    """Refuse a configuration such as {name: tpe, startup: 10, ...} that is no sampler.

    Raises:
        UserError: an unknown name or option, one that is missing, a value out of range,
            or a sampler that takes one aim, of several.
    """
    name = sampler.get("name")
    if not isinstance(name, str) or name not in _OPTIONS:
        known = ", ".join(_OPTIONS)
        raise UserError(f"sampler.name={name} is not known; choose one of {known}")
    given, wanted = sampler.keys() - {"name"}, set(_OPTIONS[name])
    if given != wanted:
        found = ", ".join(sorted(given)) or "none"
        raise UserError(
            f"sampler {name} has the options {found}; "
            f"it takes {', '.join(sorted(wanted)) or 'none'}"
        )
    for option in _OPTIONS[name]:
        wanted_is = _wrong(name, option, sampler[option])
        if wanted_is:
            raise UserError(f"sampler.{option}={sampler[option]}; make it {wanted_is}")
    if name == "cmaes" and aims > 1:
        raise UserError(f"sampler cmaes takes one aim, not {aims}; use tpe or nsga2")


def _wrong(name: str, option: str, value: object) -> str | None:
    """What a value must be and is not."""
    if value is None and (name, option) in _OR_NULL:
        return None
    if option == "multivariate":
        return None if isinstance(value, bool) else "true or false"
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if option in _LEAST:
        # With fewer, CMA-ES has one parent, of which it learns no covariance.
        least = 4 if name == "cmaes" and option == "population" else _LEAST[option]
        right = isinstance(value, int) and number and value >= least
        return None if right else f"an integer of at least {least}"
    right = isinstance(value, int | float) and number and 0 <= value <= 1
    return None if right else "a number from 0 to 1"


def _tpe(options: Mapping[str, Any], seed: int) -> BaseSampler:
    return TPESampler(
        n_startup_trials=options["startup"],
        n_ei_candidates=options["candidates"],
        multivariate=options["multivariate"],
        seed=seed,
    )


def _nsga2(options: Mapping[str, Any], seed: int) -> BaseSampler:
    return NSGAIISampler(
        population_size=options["population"],
        crossover_prob=options["crossover_prob"],
        swapping_prob=options["swapping_prob"],
        mutation_prob=options["mutation_prob"],
        seed=seed,
    )


def _cmaes(options: Mapping[str, Any], seed: int) -> BaseSampler:
    return CmaEsSampler(
        n_startup_trials=options["startup"],
        popsize=options["population"],
        warn_independent_sampling=False,
        seed=seed,
    )


def _random(options: Mapping[str, Any], seed: int) -> BaseSampler:
    return RandomSampler(seed=seed)


# A grid is fixed settings alone: nothing is left to draw.
_MAKERS = {
    "tpe": _tpe,
    "nsga2": _nsga2,
    "cmaes": _cmaes,
    "random": _random,
    "grid": _random,
}


def make_sampler(
    sampler: Mapping[str, Any], *, seed: int, fixed: Sequence[Mapping[str, Value]]
) -> BaseSampler:
    """A sampler for a checked configuration.

    Args:
        sampler: as `check_sampler` takes it.
        seed: of the sweep.
        fixed: of the first trials, by number: a starting point or a point of the grid.
            A name that is not in it is drawn.
    """
    return Repeatable(partial(_MAKERS[sampler["name"]], sampler), seed, fixed)


class Repeatable(BaseSampler):
    """Draws the same for the same study and number, in whichever process.

    Args:
        make: the sampler for a seed in [0, 2**32).
        seed: of the sweep.
        fixed: see `make_sampler`.
    """

    def __init__(
        self, make: Make, seed: int, fixed: Sequence[Mapping[str, Value]]
    ) -> None:
        self._make, self._seed, self._fixed = make, seed, tuple(fixed)
        self._of_trial = self._sampler(-1)

    def _sampler(self, number: int, *key: Key) -> BaseSampler:
        draws = stream(self._seed, "tune", number, *key)
        return self._make(int(draws.integers(2**32)))

    def _known(self, trial: FrozenTrial) -> Mapping[str, Value]:
        fixed = self._fixed[trial.number : trial.number + 1]
        return fixed[0] if fixed else {}

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._of_trial = self._sampler(trial.number)
        self._of_trial.before_trial(study, trial)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._of_trial.infer_relative_search_space(study, trial)

    def sample_relative(
        self,
        study: Study,
        trial: FrozenTrial,
        search_space: dict[str, BaseDistribution],
    ) -> dict[str, Any]:
        """Also asked for where all is fixed: a generation counts such trials."""
        if isinstance(self._of_trial, NSGAIISampler):
            # A generation's parents come in another order when they are read back, and
            # so it is when a killed driver had noted them.
            generation = self._of_trial.get_trial_generation(study, trial)
            self._of_trial.get_parent_population(study, generation)
        drawn = self._of_trial.sample_relative(study, trial, search_space)
        known = self._known(trial)
        return {name: value for name, value in drawn.items() if name not in known}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """A name drawn by itself has a seed of its own: what a killed driver had drawn
        before it is not drawn again."""
        known = self._known(trial)
        if param_name in known:
            inner = param_distribution.to_internal_repr(known[param_name])
            return param_distribution.to_external_repr(inner)  # 1 of a float is 1.0
        sampler = self._sampler(trial.number, param_name)
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        self._sampler(trial.number).after_trial(study, trial, state, values)
