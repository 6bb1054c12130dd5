"""What is averaged of a component's rows, as arrays of one value a sample."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from rrl_dist.core.records import SCHEMA, Row, table_of

_SUMS = ("queries", "seconds")
READ = (
    *("index", "correct", "loss", "distance", "displacement", "broken_by"),
    *("confidence", "label", "predicted"),
)


@dataclass(frozen=True)
class Columns:
    """A component's rows by growing index; see `rrl_dist.core.records.Row`.

    Attributes:
        index: [N] int64, each once.
        correct: [N] bool.
        loss, distance: [N] float64.
        displacement: [N] float64; None of a classifier that shows no features.
        broken_by: [N] int64, places in `attacks`; -1 for none.
        attacks: names, such as "clean".
        confidence: [N] float64, softmax probability of the answer.
        answer_right: [N] bool, whether that answer is the label. It is `correct`, but
            for models that draw at random: another pass may have said that.
    """

    index: NDArray[np.int64]
    correct: NDArray[np.bool_]
    loss: NDArray[np.float64]
    distance: NDArray[np.float64]
    displacement: NDArray[np.float64] | None
    broken_by: NDArray[np.int64]
    attacks: tuple[str, ...]
    confidence: NDArray[np.float64]
    answer_right: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.index)

    @classmethod
    def of(cls, table: pa.Table) -> "Columns":
        """Of one component's rows, one a sample, in any order; of their columns those
        in `READ` are needed."""
        order = np.argsort(numbers(table, "index"), kind="stable")
        names = table["broken_by"].combine_chunks().dictionary_encode()
        moved = table["displacement"]
        features = len(table) > 0 and moved.null_count == 0
        right = numbers(table, "predicted") == numbers(table, "label")
        return cls(
            index=numbers(table, "index")[order],
            correct=numbers(table, "correct")[order].astype(bool),
            loss=numbers(table, "loss")[order],
            distance=numbers(table, "distance")[order],
            displacement=numbers(table, "displacement")[order] if features else None,
            broken_by=_codes(names)[order],
            attacks=tuple(names.dictionary.to_pylist()),
            confidence=numbers(table, "confidence")[order],
            answer_right=right[order],
        )

    @classmethod
    def of_rows(cls, rows: Sequence[Row]) -> "Columns":
        """As `of`."""
        return cls.of(table_of(rows))


class Latest:
    """The last row of each sample, of rows that come file by file.

    Each goes to its place at once, so that no more than one file is in memory besides.

    Args:
        samples: that there may be, N.
        names: of the columns.
    """

    def __init__(self, samples: int, names: Sequence[str]) -> None:
        self._there = np.zeros(samples, dtype=bool)
        self._words: dict[str, int] = {}  # of columns of text, each once
        kinds = {name: SCHEMA.field(name) for name in names}
        self._values: dict[str, NDArray[Any]] = {
            name: np.zeros(samples, dtype=_kept_as(field.type))
            for name, field in kinds.items()
        }
        self._none = {
            name: np.zeros(samples, dtype=bool)
            for name, field in kinds.items()
            if field.nullable
        }

    def put(self, files: Iterable[tuple[NDArray[np.int64], pa.Table]]) -> None:
        """Rows of one attack in the place of those of the attacks before it, with the
        queries and seconds of all.

        Args:
            files: places in 0 to N - 1, growing with the samples' index, and rows. Of
                repeated rows the first is kept: they are equal but for their times.
        """
        fresh = np.ones(len(self._there), dtype=bool)
        for places, table in files:
            new = fresh[places]
            fresh[places] = False
            self._put(places[new], table if new.all() else table.filter(pa.array(new)))

    def _put(self, places: NDArray[np.int64], table: pa.Table) -> None:
        for name, values in self._values.items():
            column = table[name]
            if name in self._none:
                self._none[name][places] = column.is_null()
            found = self._plain(column)
            values[places] = found + values[places] if name in _SUMS else found
        self._there[places] = True

    def _plain(self, column: pa.ChunkedArray) -> NDArray[Any]:
        if not pa.types.is_string(column.type):
            zero = pa.scalar(0).cast(column.type)
            whole = column.fill_null(zero) if column.null_count else column
            return whole.to_numpy()  # type: ignore[no-any-return]
        text = column.combine_chunks().dictionary_encode()
        words = (str(word) for word in text.dictionary.to_pylist())
        codes = [self._words.setdefault(word, len(self._words)) for word in words]
        return np.array([*codes, 0])[_codes(text)]  # -1, of none, is the last

    def keep(self, chosen: NDArray[np.bool_]) -> None:
        """Forget the samples that are not chosen, [N] bool."""
        self._there &= chosen

    def table(self) -> pa.Table:
        """One row a sample that there is one of, by growing index."""
        arrays = [self._column(name) for name in self._values]
        return pa.table(arrays, schema=pa.schema(map(SCHEMA.field, self._values)))

    def _column(self, name: str) -> pa.Array:
        kind = SCHEMA.field(name).type
        there = slice(None) if self._there.all() else self._there  # a copy if need be
        values = self._values[name][there]
        none = self._none[name][there] if name in self._none else None
        if not pa.types.is_string(kind):
            return pa.array(values, kind, mask=none)
        codes = pa.array(values, pa.int32(), mask=none)
        words = pa.array(self._words, pa.string())
        return pa.DictionaryArray.from_arrays(codes, words).cast(kind)


def _kept_as(kind: pa.DataType) -> type:
    """The type of a column's values in memory; text is kept as places in a list."""
    found: type = np.int32 if pa.types.is_string(kind) else kind.to_pandas_dtype()
    return found


def numbers(table: pa.Table, name: str) -> NDArray:  # type: ignore[type-arg]
    """A column [N] of numbers or flags, of its own type."""
    return table[name].to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def _codes(names: pa.DictionaryArray) -> NDArray[np.int64]:
    codes = names.indices.fill_null(-1)
    return np.asarray(codes.to_numpy(zero_copy_only=False), dtype=np.int64)
