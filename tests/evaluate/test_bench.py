"""The evaluations that `tests.evaluate.bench_memory` makes by hand."""

import json
from pathlib import Path

import pytest

from tests.evaluate.bench_memory import read_rows, write_rows


def test_rows_made_by_hand_are_those_of_a_whole_evaluation(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_rows(str(tmp_path), 4000)
    read_rows(str(tmp_path), 4000)
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["peak"] > 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["components"]["clean"]["value"] == 0.6
    after = results["components"]["autoattack-linf@0.03137"]["after"]
    assert [round(each["value"], 2) for each in after] == [
        0.85,
        0.75,
        0.7,
        0.7,
        0.65,
    ]
    assert {each["count"] for each in after} == {200}
