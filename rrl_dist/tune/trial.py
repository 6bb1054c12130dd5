"""One trial of a sweep: an experiment of one arm that tells its probes as it goes.

Its folder is the run directory of an experiment. What is done there is not done again,
so a trial whose process was killed goes on when it is made once more.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rrl_dist.core.display import Silent
from rrl_dist.core.errors import UserError
from rrl_dist.core.interrupts import StoppedError, stopped_by
from rrl_dist.core.storage import read_json
from rrl_dist.evaluate.source import Source
from rrl_dist.experiment import Experiment
from rrl_dist.stages import given_teacher
from rrl_dist.training.journal import TrainingDivergedError, read_metrics
from rrl_dist.training.length import run_length
from rrl_dist.tune.aims import Measured, measured
from rrl_dist.tune.masking import masking_checks
from rrl_dist.tune.rules import Look

Config = Mapping[str, Any]

_LOOK_SECONDS = 0.3
_METRICS = "metrics.jsonl"


@dataclass(frozen=True)
class Report:
    """News of a trial.

    Attributes:
        looks: robust probes on the way that were made since the last report.
        final: the probe after the last step, if it has ended well and had one there.
        done: whether it has ended.
        measured: what it came to, if it has ended well.
        masked: a line for each check that its robustness did not pass.
        failed: why it could not be brought to its end, or None.
        seconds: of a device, spent on it so far.
    """

    looks: tuple[Look, ...] = ()
    final: Look | None = None
    done: bool = False
    measured: Measured | None = None
    masked: tuple[str, ...] = ()
    failed: str | None = None
    seconds: float = 0.0


class Trial:
    """Runs in a thread of its own; `step` tells what is new.

    Args:
        config: plain configuration of a run: as for `Experiment`, with one arm whose
            teacher, if it has one, is the folder `teacher`.
        folder: of this trial.
        cluster: starts it, when it is needed.
    """

    def __init__(
        self, config: Config, folder: Path, cluster: Callable[[], Config]
    ) -> None:
        self.config, self.folder = config, folder
        (self.arm,) = config["arms"]
        self._watched: Path | None = None
        self._seen, self._steps = 0, 0
        self._final: Look | None = None
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._masked: tuple[str, ...] = ()
        self._measured: Measured | None = None
        self._experiment = Experiment(config, folder, cluster, _Watched(self))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def step(self) -> Report:
        """Wait for the next probe, or the end. A trial that cannot be brought to its
        end says so in its report: others may still be."""
        while True:
            ended = not self._thread.is_alive()  # before the last look
            looks = self._looks()
            if ended:
                return self._end(looks)
            if looks:
                return Report(looks, seconds=self.seconds)
            self._thread.join(_LOOK_SECONDS)

    def stop(self, patience: float) -> None:
        """End it after the step in hand; what it has done stays.

        Args:
            patience: seconds to wait for that. Attacks are not waited for to end: their
                rows are written unit by unit.
        """
        self._stop.set()
        self._thread.join(patience)

    @property
    def seconds(self) -> float:
        """Of a device, spent on this trial in all attempts."""
        stages = list(self._experiment.stages.values())
        spent = sum(stage.seconds for stage in stages)
        return spent * int(self.config["cluster"]["workers"])

    def _run(self) -> None:
        try:
            with stopped_by(self._stop.is_set):
                self._measure()
        except BaseException as error:  # a thread's own would be lost
            self._error = error

    def _measure(self) -> None:
        run, teacher = self._experiment, given_teacher(self.config, self.arm)
        run.prepare()
        self._steps = self._length()
        encoder = run.pretrain(self.arm, teacher)
        self.watch(encoder)  # what an earlier attempt has done was not followed
        (judge,) = run.judges
        classifier = Source(str(run.probe(self.arm, judge, encoder)))
        found = run.evaluate(self.arm, judge, classifier)
        run.summarize({judge.entry(self.arm): found})
        told = read_json(self.folder / "results.json")["arms"][self.arm]
        self._masked = tuple(masking_checks(told, run.whole.source.num_classes))
        self._measured = measured(told, self.seconds)

    def _length(self) -> int:
        """Steps of its training."""
        own = self.config["arms"][self.arm]
        count = self._experiment.images[self._experiment.whole].counts[own["split"]]
        workers = int(self.config["cluster"]["workers"])
        return run_length(own["train"], self.config["probe"], count, workers).steps

    def _end(self, looks: tuple[Look, ...]) -> Report:
        error, failed = self._error, None
        if error is not None and not isinstance(error, StoppedError):
            failed = in_a_line(error)
        return Report(
            looks,
            final=self._final if self._measured is not None else None,
            done=True,
            measured=self._measured,
            masked=self._masked,
            failed=failed,
            seconds=self.seconds,
        )

    def _looks(self) -> tuple[Look, ...]:
        """Those on the way that were written since; the last is kept for the end."""
        if self._watched is None:
            return ()
        lines = read_metrics(self._watched / _METRICS)
        found = [line for line in lines if "robust_acc" in line]
        new, self._seen = found[self._seen :], len(found)
        looks = tuple(map(_look, new))
        if looks and looks[-1].step >= self._steps:
            self._final = looks[-1]
        return tuple(look for look in looks if look.step < self._steps)

    def watch(self, folder: Path) -> None:
        """Probes are written into this stage's folder from now on."""
        self._watched = folder


def _look(line: Mapping[str, Any]) -> Look:
    low, high = line["robust_low"], line["robust_high"]
    count = int(line["robust_count"])
    return Look(int(line["step"]), line["robust_acc"], low, high, count)


def in_a_line(error: BaseException) -> str:
    """An error, as a study keeps it."""
    told = str(error).strip().split("\n", 1)[0]
    if isinstance(error, UserError | TrainingDivergedError):
        return told
    return f"{type(error).__name__}: {told}" if told else type(error).__name__


class _Watched(Silent):
    """Notes where probes are written."""

    def __init__(self, trial: Trial) -> None:
        self._trial = trial

    @contextmanager
    def training(self, folder: Path, steps: int, batch_size: int) -> Iterator[None]:
        """See `Display`; a head's stage has no probes to follow."""
        if folder.name.startswith("pretrain-"):
            self._trial.watch(folder)
        yield
