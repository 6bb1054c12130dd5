"""A sweep on Ray: Tune runs several trials at once, and each trains by Ray Train.

Tune is told of nothing to remember. What it would restore from its own files is in the
study and in the trials' folders, which are written before Tune hears of anything, so a
driver that was killed is followed by a fresh Tune session that goes on there.
"""

import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from rrl_dist.core.errors import UserError
from rrl_dist.training.cluster import joined
from rrl_dist.tune.conductor import Conductor
from rrl_dist.tune.here import PATIENCE
from rrl_dist.tune.record import Asked, Outcome
from rrl_dist.tune.trial import Report, Trial, in_a_line

T = TypeVar("T")
Config = Mapping[str, Any]
# Of what was asked: a trial's configuration, and its folder.
Told = Callable[[Asked], tuple[dict[str, Any], Path]]

# A trial's own process waits for its workers and uses no core. Tune wants it to ask for
# something, and a share of a CPU would leave that CPU too small for a worker.
_FOOTPRINT = {"memory": 64 * 2**20}
_LOST = "its process was lost too often; see to memory (cluster.workers, sweep.at_once)"
_REPORT = "report"
_OF_TUNE = {
    "RAY_AIR_NEW_OUTPUT": "0",  # no tables of its own
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no metrics beside ours
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is answered as everywhere
}


class Tuned(tune.Trainable):
    """A `Trial` in a process of its own."""

    def setup(self, config: dict[str, Any]) -> None:
        """Begin it, or go on with it."""
        run = config["run"]
        folder = Path(config["folder"])
        self.trial: Trial | None = None
        try:
            self.trial = Trial(run, folder, lambda: joined(run["cluster"]))
        except Exception as error:  # raised here it would be tried again, and again
            self.failed = in_a_line(error)

    def step(self) -> dict[str, Any]:
        """Its next report."""
        if self.trial is None:
            report = Report(done=True, failed=self.failed)
        else:
            report = self.trial.step()
        return {_REPORT: report, "done": report.done}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Nothing: all that it has done is in its folder."""
        return {}

    def load_checkpoint(self, checkpoint: Any) -> None:
        """See `save_checkpoint`."""

    def cleanup(self) -> None:
        """End it after the step in hand."""
        if self.trial is not None:
            self.trial.stop(PATIENCE)


class Search(Searcher):
    """Asks the study what comes next.

    Args:
        conductor: of the study.
        told: what a trial is told.
        at_once: trials at a time.
    """

    def __init__(self, conductor: Conductor, told: Told, at_once: int) -> None:
        super().__init__()
        self.conductor, self.told, self.at_once = conductor, told, at_once
        self.number: dict[str, int] = {}  # of trials in flight, by Tune's names
        self.error: UserError | None = None

    def __reduce__(self) -> Any:  # Tune keeps a copy to restore, which is not used
        return object, ()

    def set_search_properties(self, *given: Any, **more: Any) -> bool:
        """The study knows the aims."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """The next trial; None for later."""
        if len(self.number) >= self.at_once:
            return None
        asked = None
        if self.error is None:
            asked = self._guarded(self.conductor.next)
        if asked is None:
            return self.FINISHED
        self.number[trial_id] = asked.number
        run, folder = self.told(asked)
        return {"run": run, "folder": str(folder)}

    def on_trial_complete(
        self, trial_id: str, result: Any = None, error: bool = False
    ) -> None:
        """Hear what the scheduler is not told: the report that ends a trial."""
        number = self.number.pop(trial_id)
        report = (result or {}).get(_REPORT)
        if error:
            lost = Outcome.failed(_LOST, 0.0)
            self._guarded(lambda: self.conductor.ended(number, lost))
        elif report is not None and report.done:
            self.hear(number, report)

    def hear(self, number: int, report: Report) -> str | None:
        """As `Conductor.heard`; why the trial ends also where nothing can be noted."""
        why = self._guarded(lambda: self.conductor.heard(number, report))
        return why if self.error is None else str(self.error)

    def _guarded(self, call: Callable[[], T]) -> T | None:
        """What a call returns. A mistake that it raises, such as a database that is
        gone, is kept until Tune has ended: raised here it would come as Tune's own."""
        try:
            return call()
        except UserError as error:
            self.error = error
            return None

    def save(self, checkpoint_path: str) -> None:
        """The study has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """See `save`."""


class Scheduler(FIFOScheduler):
    """Lets the conductor hear what trials report on the way."""

    def __init__(self, search: Search) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.search = search

    def __reduce__(self) -> Any:
        return object, ()

    def on_trial_result(self, controller: Any, trial: Any, result: Any) -> str:
        """Whether it goes on."""
        number = self.search.number[trial.trial_id]
        why = self.search.hear(number, result[_REPORT])
        return str(self.CONTINUE if why is None else self.STOP)


def sweep_on_ray(
    conductor: Conductor, told: Told, folder: Path, *, at_once: int, max_failures: int
) -> None:
    """Run all trials that are missing, in the Ray session that this process is in.

    Args:
        conductor: of the study.
        told: what a trial is told.
        folder: of the sweep.
        at_once: trials at a time.
        max_failures: of a trial's process or node, before the trial counts as failed.

    Raises:
        UserError: see `Conductor.check`.
    """
    for name, value in _OF_TUNE.items():
        os.environ.setdefault(name, value)
    search = Search(conductor, told, at_once)
    footprint = tune.PlacementGroupFactory([dict(_FOOTPRINT)])
    tuner = tune.Tuner(
        tune.with_resources(Tuned, footprint),
        tune_config=tune.TuneConfig(
            search_alg=search,
            scheduler=Scheduler(search),
            num_samples=-1,  # the study says when there are no more
        ),
        run_config=tune.RunConfig(
            # A name of its own: what an earlier session left is not gone on with.
            name=uuid.uuid4().hex,
            storage_path=str(folder / "ray"),
            failure_config=tune.FailureConfig(max_failures=max_failures),
            verbose=0,
        ),
    )
    tuner.fit()
    if search.error is not None:
        raise search.error
    conductor.check()
