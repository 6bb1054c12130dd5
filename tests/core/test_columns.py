"""Rows that come file by file, of which one is kept for each sample."""

from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rrl_dist.core.columns import READ, Columns, Latest
from rrl_dist.core.records import SCHEMA, Row, from_bytes, rows_of, table_of, to_bytes

SAMPLES = 8
INDEX = 3 * np.arange(SAMPLES) + 5  # of the samples in their data set


def made(place: int, draws: Any) -> Row:
    """Some row of a sample."""
    return Row(
        index=int(INDEX[place]),
        label=draws.randrange(10),
        predicted=draws.randrange(10),
        component=draws.choice(["a", "b", ""]),
        correct=draws.random() < 0.5,
        margin=draws.uniform(-1, 1),
        confidence=draws.random(),
        loss=draws.choice([0.0, float("inf"), draws.random()]),
        distance=draws.random(),
        displacement=draws.choice([None, draws.random()]),
        queries=draws.randrange(2**40),
        broken_by=draws.choice([None, "clean", "apgd-ce"]),
        corruption=draws.choice([None, "fog"]),
        severity=draws.choice([None, 1, 5]),
        seed=draws.randrange(2**62),
        seconds=draws.random(),
    )


def by_hand(attacks: list[list[list[Row]]]) -> list[Row]:
    """The last attack's first row of each sample, with queries and seconds of all."""
    kept: dict[int, Row] = {}
    for files in attacks:
        firsts: dict[int, Row] = {}
        for row in (row for file in files for row in file):
            firsts.setdefault(row.index, row)
        for index, row in firsts.items():
            values = vars(row)
            if index in kept:
                before = kept[index]
                queries, seconds = before.queries, before.seconds
                values = {**values, "queries": row.queries + queries}
                values["seconds"] = seconds + row.seconds
            kept[index] = Row(**values)
    return [kept[index] for index in sorted(kept)]


def latest(attacks: list[list[list[Row]]], names: list[str]) -> Latest:
    found = Latest(SAMPLES, names)
    for files in attacks:
        found.put(
            (np.searchsorted(INDEX, [row.index for row in file]), _read(file, names))
            for file in files
        )
    return found


def _read(file: list[Row], names: list[str]) -> Any:
    return from_bytes(to_bytes(table_of(file), {}), "x", names)[0]


@settings(deadline=None, max_examples=60)
@given(
    attacks=st.lists(
        st.lists(st.sets(st.integers(0, SAMPLES - 1)), max_size=3), max_size=3
    ),
    draws=st.randoms(use_true_random=False),
)
def test_one_row_is_kept_as_if_all_were_in_memory(
    attacks: list[list[set[int]]], draws: Any
) -> None:
    rows = [[[made(p, draws) for p in file] for file in files] for files in attacks]
    expected = by_hand(rows)
    found = latest(rows, SCHEMA.names).table()
    assert found.schema.equals(SCHEMA)
    assert rows_of(found) == expected
    few = latest(rows, list(READ)).table()
    assert few.equals(table_of(expected).select(READ))


def test_what_is_averaged_needs_no_other_columns() -> None:
    rows = [made(place, Random(place)) for place in (2, 0, 1)]
    table = table_of(rows)
    found, expected = Columns.of(table.select(READ)), Columns.of_rows(rows)
    for name, values in vars(expected).items():
        np.testing.assert_array_equal(getattr(found, name), values)
    with pytest.raises(KeyError):
        Columns.of(table.select(READ[:-1]))
