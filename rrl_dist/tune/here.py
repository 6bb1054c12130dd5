"""A sweep without Ray: its trials one after another, in this process."""

from collections.abc import Callable

from rrl_dist.tune.conductor import Conductor
from rrl_dist.tune.record import Asked
from rrl_dist.tune.trial import Trial

# Seconds for the step in hand, where a person or a rule ends a trial.
PATIENCE = 60.0

Make = Callable[[Asked], Trial]


def sweep_here(conductor: Conductor, make: Make) -> None:
    """Run all trials that are missing.

    Args:
        conductor: of the study.
        make: begins a trial, or goes on with it.

    Raises:
        UserError: see `Conductor.check`.
        KeyboardInterrupt: a trial in flight stays one, and is gone on with next time.
    """
    while (asked := conductor.next()) is not None:
        trial = make(asked)
        try:
            ends = False
            while not ends:
                report = trial.step()
                pruned = conductor.heard(asked.number, report) is not None
                ends = pruned or report.done
        finally:
            trial.stop(PATIENCE)
    conductor.check()
