"""Rows: one per (sample, component) of an evaluation, kept as Parquet.

A unit of work leaves one file, complete or not at all; writing it twice is harmless,
since one row is kept per (sample, component).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import pyarrow as pa
import pyarrow.parquet as pq

from rrl_dist.core.errors import UserError

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
        pa.field("displacement", pa.float64()),
        pa.field("queries", pa.int64(), nullable=False),
        pa.field("broken_by", pa.string()),
        pa.field("corruption", pa.string()),
        pa.field("severity", pa.int64()),
        pa.field("seed", pa.int64(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
    ]
)
# Rows that are written at a time: to write many takes no more memory than to write few.
_GROUP = 4096


class DamagedError(Exception):
    """A file of rows that is not what was written."""


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
            image's, in the encoder's own units; None of a classifier that shows none.
        queries: forward passes that this sample took.
        broken_by: of a component that is several attacks in turn, the one that broke
            the image, or "clean" if it was wrong from the start; None if it stays
            right, and for a component that is one attack.
        corruption, severity: for corruption suites; None otherwise.
        seed: seed of the component's randomness.
        seconds: this sample's share of its unit's time.
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
    displacement: float | None
    queries: int
    seed: int
    seconds: float
    broken_by: str | None = None
    corruption: str | None = None
    severity: int | None = None


def table_of(rows: Sequence[Row]) -> pa.Table:
    """Rows as columns."""
    return pa.Table.from_pylist([asdict(row) for row in rows], schema=SCHEMA)


def rows_of(table: pa.Table) -> list[Row]:
    """Columns as rows, in their order."""
    names = [field.name for field in fields(Row)]
    return [Row(**{name: r[name] for name in names}) for r in table.to_pylist()]


def to_bytes(table: pa.Table, about: Mapping[str, str]) -> bytes:
    """A Parquet file with checksums of its pages.

    Args:
        table: of `SCHEMA`.
        about: what is known of all of its rows.
    """
    sink = pa.BufferOutputStream()
    about = {**(table.schema.metadata or {}), **about}
    table = table.replace_schema_metadata(about)
    with pq.ParquetWriter(sink, table.schema, write_page_checksum=True) as file:
        for start in range(0, max(len(table), 1), _GROUP):
            file.write_table(table.slice(start, _GROUP))
            pa.default_memory_pool().release_unused()
    content: bytes = sink.getvalue().to_pybytes()
    return content


def from_bytes(
    content: bytes, name: str, columns: Sequence[str] = tuple(SCHEMA.names)
) -> tuple[pa.Table, dict[str, str]]:
    """What `to_bytes` was given.

    Args:
        content: of a file.
        name: the file's, for messages.
        columns: to be read and checked; the others are left where they are.

    Raises:
        DamagedError: bytes are missing, or are others than were written.
        UserError: it lacks a column; an earlier version wrote it.
    """
    try:
        source = pa.BufferReader(content)
        with pq.ParquetFile(source, page_checksum_verification=True) as file:
            found = file.schema_arrow
            missing = [name for name in SCHEMA.names if name not in found.names]
            # Threads would each keep what memory they once had.
            read = file.read(None if missing else list(columns), use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise DamagedError(f"{name}: {str(error).splitlines()[0]}") from None
    if missing:
        raise UserError(
            f"{name} is of an earlier version, without {', '.join(missing)}; "
            "choose another name="
        )
    told = found.metadata or {}
    about = {key.decode(): value.decode() for key, value in told.items()}
    return read.select(columns).replace_schema_metadata(None), about
