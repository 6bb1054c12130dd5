"""Samples of a finished evaluation attacked again, and held against its rows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from rrl_dist.core.errors import UserError
from rrl_dist.core.randomness import stream
from rrl_dist.core.records import Row, rows_of
from rrl_dist.core.storage import read_json
from rrl_dist.core.store import Store, open_store
from rrl_dist.evaluate.grid import Link
from rrl_dist.evaluate.images import chosen_images
from rrl_dist.evaluate.ledger import MANIFEST, Ledger
from rrl_dist.evaluate.robust import Evaluator
from rrl_dist.evaluate.stage import JOB, restored, store_below
from rrl_dist.evaluate.surrogates import load_models
from rrl_dist.training.devices import own_device

_TIMES = ("seconds",)


@dataclass(frozen=True)
class Difference:
    """A row that came out otherwise.

    Attributes:
        link: whose.
        index: the sample's.
        column: the first that differs.
        kept, found: its values.
    """

    link: str
    index: int
    column: str
    kept: Any
    found: Any

    def __str__(self) -> str:
        return (
            f"{self.link}, image {self.index}: {self.column} was {self.kept} and is "
            f"{self.found}"
        )


@dataclass(frozen=True)
class Verified:
    """What came of it.

    Attributes:
        rows: how many were made again.
        differences: those that came out otherwise.
    """

    rows: int
    differences: tuple[Difference, ...]


def evaluations_in(run: Path) -> list[Path]:
    """Folders of the finished evaluations of a run.

    Raises:
        UserError: there is none.
    """
    done = sorted(run.glob("stages/evaluate-*/done.json"))
    found = [file.parent for file in done if (file.parent / JOB).is_file()]
    if not found and (run / MANIFEST).is_file():
        raise UserError(
            f"verify={run} was evaluated from Python, and its model is not known here; "
            "call rrl_dist.evaluate.evaluate again with another out= and a limit=, and "
            "compare the rows in samples/"
        )
    if not found:
        raise UserError(
            f"verify={run} holds no finished evaluation; give the name or the folder "
            "of a finished rrl evaluate or rrl run"
        )
    return found


def verify(
    folder: Path, cluster: Mapping[str, Any], *, samples: int, seed: int
) -> Verified:
    """Attack some samples of an evaluation again, in this process.

    Args:
        folder: of a stage.
        cluster: `gpu`, settled.
        samples: how many, drawn from those that were attacked.
        seed: of the draw.

    Raises:
        UserError: the model is gone or another, or rows are missing.
    """
    job = read_json(folder / JOB)
    others = {name: restored(it) for name, it in job["surrogates"].items()}
    models = load_models(restored(job["classifier"]), others)
    store = _store(folder, job)
    evaluator = Evaluator(job, models, store, own_device(cluster))
    index = chosen_images(job).index
    ledger = Ledger(store, evaluator.suite.chains, index)
    attacked = np.flatnonzero(np.isin(index, ledger["clean"].index))
    if len(attacked) == 0:
        raise UserError(f"{store.address} has no rows of clean images; evaluate again")
    drawn = stream(seed, "verify").permutation(attacked)[:samples]
    wanted = np.sort(drawn).tolist()
    compared = [
        pair
        for chain in ledger.chains
        for link in chain
        for pair in _again(evaluator, ledger, link, wanted, index)
    ]
    differences = [d for pair in compared if (d := _difference(*pair)) is not None]
    return Verified(len(compared), tuple(differences))


def _store(folder: Path, job: Mapping[str, Any]) -> Store:
    rows = job["asked"]["rows"]
    if rows is None:
        return open_store(folder)
    run = folder.parents[1].name
    return store_below(str(rows), f"{run}/{folder.name}")


def _again(
    evaluator: Evaluator,
    ledger: Ledger,
    link: Link,
    positions: Sequence[int],
    index: NDArray[np.int64],
) -> Iterator[tuple[Row, Row]]:
    """Rows as they were kept and as they are now, of the samples that were asked about
    at that link."""
    table = ledger.link_table(link)
    inside = pc.is_in(table["index"], pc.cast(index[positions], "int64"))
    kept = {row.index: row for row in rows_of(table.filter(inside))}
    asked = [position for position in positions if int(index[position]) in kept]
    if asked:
        for row in evaluator.rows(link, asked)[0]:
            yield kept[row.index], row


def _difference(kept: Row, found: Row) -> Difference | None:
    for field in fields(Row):
        was, now = getattr(kept, field.name), getattr(found, field.name)
        if field.name not in _TIMES and was != now:
            return Difference(kept.component, kept.index, field.name, was, now)
    return None
