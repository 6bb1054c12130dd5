"""Views that take their time where a test wants training to last, and note what they
are of."""

import json
import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

from torch import Tensor

PAUSE = "RRL_TEST_PAUSE"  # in the environment of a worker: seconds of each step


class Paused:
    """Other views, after a pause.

    Args:
        views: the others.
        log: a file that receives a line of each worker's part of each step.
    """

    def __init__(self, views: Any, log: str) -> None:
        self.views, self.log = views, log

    def __call__(self, images: Tensor, index: Tensor, **about: Any) -> Any:
        time.sleep(float(os.environ.get(PAUSE, 0)))
        with open(self.log, "a") as file:
            file.write(json.dumps([about["epoch"], index.tolist()]) + "\n")
        return self.views(images, index, **about)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.views, name)


def paused(stage: dict[str, Any], log: Path) -> dict[str, Any]:
    target = f"{__name__}.{Paused.__name__}"
    views = {"_target_": target, "views": stage["views"], "log": str(log)}
    return {**stage, "views": views}


def lines_of(log: Path) -> list[Any]:
    """The whole ones."""
    text = log.read_text() if log.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]


def steps_again(log: Path, batch_size: int, *, after: int = 0) -> float:
    """How many steps were done again, among the lines after so many."""
    seen = Counter(
        (epoch, image) for epoch, part in lines_of(log)[after:] for image in part
    )
    return (seen.total() - len(seen)) / batch_size
