from dataclasses import fields, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rrl_dist.core.errors import UserError
from rrl_dist.core.records import SCHEMA, Row, read_rows, write_rows

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
    displacement=real,
    queries=whole,
    seed=whole,
    seconds=real,
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
    table=st.lists(rows, max_size=6, unique_by=lambda r: (r.component, r.index)),
)
def test_rows_come_back_as_they_were(tmp_path_factory, table: list[Row]) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.parquet"
    write_rows(path, table)
    expected = sorted(table, key=lambda r: (r.component, r.index))
    assert read_rows([path]) == expected


@settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_each_pair_is_kept_once_and_in_order(tmp_path: Path, data) -> None:
    pairs = st.tuples(st.sampled_from(["clean", "b", "a@1"]), st.integers(0, 5))
    units = data.draw(st.lists(st.lists(pairs, max_size=5), max_size=4))
    files = []
    for number, unit in enumerate(units):
        files.append(tmp_path / f"{number}.parquet")
        write_rows(files[-1], [row(i, name, seconds=number) for name, i in unit])
    found = read_rows(files)
    wanted = sorted({pair for unit in units for pair in unit})
    assert [(r.component, r.index) for r in found] == wanted
    for kept in found:
        key = (kept.component, kept.index)
        first = next(n for n, unit in enumerate(units) if key in unit)
        assert kept.seconds == first


def test_writing_a_unit_twice_is_harmless(tmp_path: Path) -> None:
    unit = [row(1), row(0)]
    write_rows(tmp_path / "a.parquet", unit)
    once = (tmp_path / "a.parquet").read_bytes()
    write_rows(tmp_path / "a.parquet", unit)
    assert (tmp_path / "a.parquet").read_bytes() == once
    assert [path.name for path in tmp_path.iterdir()] == ["a.parquet"]


def test_a_row_without_a_value_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.parquet"
    with pytest.raises((ValueError, TypeError)):
        write_rows(path, [row(0, label="seven")])
    assert not path.exists()


def test_other_tools_find_the_columns_named_and_typed(tmp_path: Path) -> None:
    write_rows(tmp_path / "a.parquet", [row(3, corruption="fog", severity=2)])
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.schema.equals(SCHEMA)
    assert table.to_pylist()[0]["corruption"] == "fog"


def test_rows_of_an_earlier_version_are_told_of_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "old.parquet"
    write_rows(path, [row(3)])
    old = pq.read_table(path).drop_columns(["loss", "displacement"])
    pq.write_table(old, path)
    told = r"old.parquet is of an earlier version, without loss, displacement; choose"
    with pytest.raises(UserError, match=told) as caught:
        read_rows([path])
    assert "\n" not in str(caught.value)
