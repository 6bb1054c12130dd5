"""Rows: one per (sample, component) of an evaluation, kept as Parquet.

A unit of work leaves one file, complete or not at all; writing it twice is harmless,
since readers keep one row per (sample, component).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import atomic_path

SCHEMA = pa.schema(
    [
        pa.field("index", pa.int64(), nullable=False),
        pa.field("label", pa.int64(), nullable=False),
        pa.field("predicted", pa.int64(), nullable=False),
        pa.field("component", pa.string(), nullable=False),
        pa.field("correct", pa.bool_(), nullable=False),
        pa.field("margin", pa.float64(), nullable=False),
        pa.field("confidence", pa.float64(), nullable=False),
        pa.field("loss", pa.float64(), nullable=False),
        pa.field("distance", pa.float64(), nullable=False),
        pa.field("displacement", pa.float64(), nullable=False),
        pa.field("queries", pa.int64(), nullable=False),
        pa.field("corruption", pa.string()),
        pa.field("severity", pa.int64()),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Row:
    """What one component did to one sample.

    Attributes:
        index: the sample's place in its data set.
        label, predicted: classes; `predicted` is on the attacked image.
        component: the attack's name and ball, such as "pgd20-linf@0.05"; "clean".
        correct: whether the classifier still answers `label`.
        margin: logit of the label minus the largest other; negative where wrong.
        confidence: softmax probability of `predicted`.
        loss: cross-entropy at the attacked image, in nats.
        distance: size of the perturbation in the ball's norm, in [0, 1] pixels.
        displacement: Euclidean distance of the attacked image's features from the clean
            image's, in the encoder's own units.
        queries: forward passes that this sample took.
        corruption, severity: for corruption suites; None otherwise.
        seed: seed of the component's randomness.
        seconds: this sample's share of its atom's time.
    """

    index: int
    label: int
    predicted: int
    component: str
    correct: bool
    margin: float
    confidence: float
    loss: float
    distance: float
    displacement: float
    queries: int
    seed: int
    seconds: float
    corruption: str | None = None
    severity: int | None = None


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Write one unit's rows atomically."""
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=SCHEMA)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary)


def read_rows(files: Sequence[Path]) -> list[Row]:
    """Rows of all files, one per (sample, component), ordered by component and sample.

    Of repeated rows the first in the order of `files` is kept; repeats are equal but
    for their time, since a row's content does not depend on who computed it.

    Raises:
        UserError: a file lacks a column; an earlier version wrote it.
    """
    names = [field.name for field in fields(Row)]
    kept: dict[tuple[str, int], Row] = {}
    for file in files:
        with pq.ParquetFile(file) as parquet:
            table = parquet.read()
        missing = [name for name in SCHEMA.names if name not in table.column_names]
        if missing:
            raise UserError(
                f"{file} is of an earlier version, without {', '.join(missing)}; "
                "choose another name="
            )
        for record in table.to_pylist():
            row = Row(**{name: record[name] for name in names})
            kept.setdefault((row.component, row.index), row)
    return [kept[key] for key in sorted(kept)]
