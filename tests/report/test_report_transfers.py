"""The source x target matrix of a report."""

from pathlib import Path
from typing import Any

from rrl_dist.report.labels import MISSING
from rrl_dist.report.load import load_run
from rrl_dist.report.markdown import TRANSFERS, tables
from rrl_dist.report.transfers import transfer_table
from tests.report.conftest import share

# Right under the images of each source: by target and source.
FOUND = {
    "simclr": {"simclr": 0.1, "deacl": 0.6, "an-other_1": 0.7},
    "deacl": {"simclr": 0.8, "deacl": 0.3},
}


def test_rows_are_sources_and_columns_are_targets(
    results: Any, tmp_path: Path, save: Any
) -> None:
    written = results("simclr", "deacl")
    for target, shares in FOUND.items():
        components = written["arms"][target]["components"]
        for source, value in shares.items():
            components[f"mi-fgsm10-from-{source}-linf@0.03137"] = share(value)
    run = load_run(save(tmp_path / "run", written))
    table = transfer_table([run])
    assert table is not None
    assert table.header[:2] == ("attack", "made on")
    targets = [name.split(" ")[0] for name in table.header[2:]]
    assert {row[0] for row in table.rows} == {"MI-FGSM-10"}
    told = {
        target: {row[1]: row[2 + column].split(" ")[0] for row in table.rows}
        for column, target in enumerate(targets)
    }
    expected = {
        target: {source: f"{100 * value:.1f}" for source, value in shares.items()}
        for target, shares in FOUND.items()
    }
    assert told == {**expected, "deacl": {**expected["deacl"], "an-other_1": MISSING}}
    shown = tables([run], None)
    assert shown[TRANSFERS].rows == table.rows
    first = next(iter(shown.values()))
    assert not any("from" in name.lower() for name in first.header)


def test_a_run_without_such_images_has_no_such_table(
    results: Any, tmp_path: Path, save: Any
) -> None:
    run = load_run(save(tmp_path / "run", results("simclr", "deacl")))
    assert transfer_table([run]) is None
    assert TRANSFERS not in tables([run], None)
