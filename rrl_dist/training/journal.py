"""Metrics of a run: one JSON line per interval, and TensorBoard."""

import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rrl_dist.core.storage import write_bytes, writing
from rrl_dist.training.board import Board
from rrl_dist.training.breakdown import Breakdown


class TrainingDivergedError(Exception):
    """A term of the loss is not finite; the message names step and term."""


class Journal:
    """Collects each step's terms and writes their means.

    Terms stay on their device until `flush`, so that a step does not wait for the one
    before it. All workers collect; only `writes` ones keep files.

    Args:
        folder: the run directory; receives `metrics.jsonl` and `tensorboard/`.
        writes: whether this worker keeps the files.
        start: steps already done; what an earlier attempt wrote beyond is dropped.
        breakdown: measures the parts of a step, whose means are written too.
    """

    def __init__(
        self,
        folder: Path,
        *,
        writes: bool,
        start: int,
        breakdown: Breakdown | None = None,
    ) -> None:
        self.path = folder / "metrics.jsonl"
        self.breakdown = breakdown or Breakdown(torch.device("cpu"), measures=False)
        self.writes = writes
        self._steps: list[int] = []
        self._terms: list[dict[str, Tensor]] = []
        self._clock = time.perf_counter()
        self._board: Board | None = None
        if writes:
            self._drop_after(start)
            self._board = Board(folder / "tensorboard", purge_step=start + 1)

    def _drop_after(self, step: int) -> None:
        kept = [r for r in read_metrics(self.path) if r["step"] <= step]
        text = "".join(json.dumps(r) + "\n" for r in kept)
        write_bytes(self.path, text.encode())

    def add(self, step: int, terms: dict[str, Tensor]) -> None:
        """Note the terms of a finished step, without waiting for them."""
        self._steps.append(step)
        self._terms.append({name: value.detach() for name, value in terms.items()})

    def flush(self, **extra: Any) -> None:
        """Write the means since the last flush.

        Raises:
            TrainingDivergedError: a term was not finite. The terms are global, so all
                workers raise together.
        """
        if not self._terms:
            return
        names = list(self._terms[0])
        table = torch.stack(
            [torch.stack([t[n].float() for n in names]) for t in self._terms]
        ).cpu()
        steps, self._steps, self._terms = self._steps, [], []
        for step, values in zip(steps, table.tolist(), strict=True):
            for name, value in zip(names, values, strict=True):
                if not math.isfinite(value):
                    raise TrainingDivergedError(
                        f"step {step}: {name} is {value}; lower optim.lr, set "
                        "optim.clip_grad, or use strategy.precision=fp32"
                    )
        means = dict(zip(names, table.mean(0).tolist(), strict=True))
        pace = len(steps) / max(time.perf_counter() - self._clock, 1e-9)
        parts = self.breakdown.mean(len(steps))
        self.write(steps[-1], {**means, **extra, "steps_per_second": pace, **parts})
        self._clock = time.perf_counter()

    def write(self, step: int, values: dict[str, Any]) -> None:
        """Append one line, and a TensorBoard scalar for each number in it.

        Raises:
            UserError: the disk is full.
        """
        if self._board is None:
            return
        with writing(self.path), self.path.open("a") as file:
            file.write(json.dumps({"step": step, **values}) + "\n")
        numbers = {k: v for k, v in values.items() if isinstance(v, int | float)}
        self._board.add(step, numbers)

    def restart_clock(self) -> None:
        """Leave out of the pace what was not training (probes, checkpoints)."""
        self._clock = time.perf_counter()

    def close(self) -> None:
        """Finish the files."""
        if self._board is not None:
            self._board.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a metrics file, without a last one cut short by a kill."""
    if not path.is_file():
        return []
    lines = path.read_text().split("\n")
    return [json.loads(line) for line in lines[:-1] if line]
