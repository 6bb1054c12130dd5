"""Attempts whose checkpoints are copied, and what is in the copy."""

import re
from pathlib import Path
from typing import Any

import torch

from rrl_dist.core.store import Store
from rrl_dist.training.checkpoint_claim import claimed
from rrl_dist.training.checkpoint_copy import CheckpointCopy
from tests.training.saved import attempt, write

NAME = "run/stage"


def state(step: int) -> dict[str, Any]:
    named = {"identity": "x", "workers": 1, "objective": {}}
    return {"step": step, "weight": torch.full((50,), float(step)), **named}


class Copied:
    """Attempts on one folder; each sees the copy as a new process would."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder, self.store = folder, store
        self.news: list[str] = []

    def save(self, *steps: int, **options: Any) -> dict[str, Any] | None:
        """An attempt that saves these steps; returns what it begins with."""
        copy = CheckpointCopy(self.store, NAME)
        writer, begun = attempt(
            self.folder, copy=copy, notify=self.news.append, **options
        )
        for step in steps:
            write(writer, step, state(step))
        writer.close()
        return begun

    def begins_with(self) -> int:
        begun = self.save()
        if begun is None:
            return 0
        weight = torch.full((50,), float(begun["step"]))
        assert torch.equal(begun["weight"], weight)
        return int(begun["step"])

    def there(self) -> list[str]:
        names = [name.removeprefix(f"{NAME}/") for name in self.store.names()]
        return [name for name in names if claimed(name) is None]

    def here(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("step-*"))

    def same(self) -> bool:
        """Whether the same is there and here; what an attempt has taken over bears
        another name here."""
        there = {kind(n): self.store.read(f"{NAME}/{n}") for n in self.there()}
        here = {kind(n): (self.folder / n).read_bytes() for n in self.here()}
        assert len(there) == len(self.there())
        parts = {name for name in here if name.endswith(".pt")}
        return there.keys() == here.keys() and all(
            there[name] == here[name] for name in parts
        )


def kind(name: str) -> str:
    """A file's name without the attempt's."""
    return re.sub(r"(step-\d+)-[0-9a-f]{8}", r"\1", name)
