"""An evaluation attacks each image once, whatever its number divides by."""

from collections import Counter
from pathlib import Path

from rrl_dist.core.records import from_bytes, rows_of
from rrl_dist.evaluate.grid import ATOM
from tests.evaluate.jobs import COMPONENTS, LIMIT, Job, chosen


def test_no_image_is_there_twice_to_fill_a_batch(job: Job, finished: Path) -> None:
    assert LIMIT % ATOM
    assert LIMIT % int(job["suite"]["micro_batch"])
    found = Counter[tuple[str, int]]()
    for file in (finished / "rows").rglob("*.parquet"):
        rows = rows_of(from_bytes(file.read_bytes(), file.name)[0])
        found.update((row.component, row.index) for row in rows)
    index = chosen(job)[2].tolist()
    assert found == Counter((part, i) for part in COMPONENTS for i in index)
    assert set(found.values()) == {1}
