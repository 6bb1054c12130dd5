from dataclasses import fields, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rrl_dist.core.errors import UserError
from rrl_dist.core.records import (
    SCHEMA,
    DamagedError,
    Row,
    from_bytes,
    rows_of,
    table_of,
    to_bytes,
)

whole = st.integers(-(2**63), 2**63 - 1)
real = st.floats(allow_nan=False)
rows = st.builds(
    Row,
    index=whole,
    label=whole,
    predicted=whole,
    component=st.text(max_size=12),
    correct=st.booleans(),
    margin=real,
    confidence=real,
    loss=real,
    distance=real,
    displacement=st.none() | real,
    queries=whole,
    seed=whole,
    seconds=real,
    broken_by=st.none() | st.sampled_from(["clean", "apgd-ce"]),
    corruption=st.none() | st.text(max_size=5),
    severity=st.none() | whole,
)


def row(index: int, component: str = "clean", **changes: object) -> Row:
    made = Row(
        index=index,
        label=1,
        predicted=1,
        component=component,
        correct=True,
        margin=0.5,
        confidence=0.9,
        loss=0.3,
        distance=0.0,
        displacement=0.0,
        queries=1,
        seed=0,
        seconds=0.1,
    )
    return replace(made, **changes)


def test_the_schema_has_a_column_for_each_field() -> None:
    assert set(SCHEMA.names) == {field.name for field in fields(Row)}


@settings(deadline=None, max_examples=30)
@given(
    table=st.lists(rows, max_size=6),
    about=st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=3),
)
def test_rows_come_back_as_they_were(table: list[Row], about: dict[str, str]) -> None:
    found, told = from_bytes(to_bytes(table_of(table), about), "x")
    assert rows_of(found) == table
    assert told == about


def test_the_same_rows_are_the_same_bytes() -> None:
    first, second = (to_bytes(table_of([row(1), row(0)]), {"a": "b"}) for _ in range(2))
    assert first == second


def test_columns_that_are_asked_for_come_alone_with_what_is_known_of_all() -> None:
    table = table_of([row(i, loss=i / 7) for i in range(9)])
    found, told = from_bytes(to_bytes(table, {"a": "b"}), "x", ["loss", "index"])
    assert found.equals(table.select(["loss", "index"]))
    assert told == {"a": "b"}


@pytest.mark.parametrize("count", [0, 1, 4096, 4097, 10_000])
def test_any_number_of_rows_comes_back(count: int) -> None:
    index = pa.array(range(count), pa.int64())
    table = table_of([row(0)]).take(pa.array([0] * count, pa.int64()))
    table = table.set_column(0, SCHEMA.field("index"), index)
    assert from_bytes(to_bytes(table, {}), "x")[0].equals(table)


def test_a_row_without_a_value_is_refused() -> None:
    with pytest.raises((ValueError, TypeError)):
        table_of([row(0, label="seven")])


def test_other_tools_find_the_columns_named_and_typed(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(to_bytes(table_of([row(3, corruption="fog", severity=2)]), {}))
    table = pq.read_table(path)
    assert table.schema.equals(SCHEMA)
    assert table.to_pylist()[0]["corruption"] == "fog"


def test_rows_of_an_earlier_version_are_told_of_in_one_line() -> None:
    old = table_of([row(3)]).drop_columns(["loss", "displacement"])
    told = r"old.parquet is of an earlier version, without loss, displacement; choose"
    with pytest.raises(UserError, match=told) as caught:
        from_bytes(to_bytes(old, {}), "old.parquet")
    assert "\n" not in str(caught.value)


MANY = to_bytes(table_of([row(i, margin=i / 7) for i in range(64)]), {"atoms": "0"})


@given(length=st.integers(0, len(MANY) - 1))
def test_a_file_that_lacks_its_end_is_damaged(length: int) -> None:
    with pytest.raises(DamagedError, match=r"^x: "):
        from_bytes(MANY[:length], "x")


@settings(deadline=None, max_examples=300)
@given(place=st.integers(0, len(MANY) - 1), bit=st.integers(0, 7))
def test_a_bit_that_fell_over_never_changes_a_row(place: int, bit: int) -> None:
    """It is found, or it is in a part of the file that says nothing of rows."""
    changed = bytearray(MANY)
    changed[place] ^= 1 << bit
    try:
        found, _ = from_bytes(bytes(changed), "x")
    except (DamagedError, UserError):
        return
    assert rows_of(found) == rows_of(from_bytes(MANY, "x")[0])
