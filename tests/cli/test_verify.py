"""`rrl evaluate verify=RUN` tells which rows are not what the attacks find."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rrl_dist.cli.main import main
from rrl_dist.core.records import from_bytes, rows_of, table_of, to_bytes
from rrl_dist.core.storage import write_json
from rrl_dist.evaluate.ledger import MANIFEST
from tests.evaluate.strangers import MODULE, TEXT
from tests.mistakes.commands import refused

SMALL = (
    *("data=digits", "loader=memory", "suite=pgd20", "suite.attacks.pgd20.steps=2"),
    *("suite.micro_batch=8", "evaluate.limit=24", "evaluate.gallery=0"),
)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Where a stranger's module was evaluated as runs/a."""
    (tmp_path / f"{MODULE}.py").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    settings = [f"storage={tmp_path / 'runs'}", "cluster=debug", "cluster.threads=1"]
    begun = ["evaluate", f"model={MODULE}:build", "name=a", *SMALL, *settings]
    monkeypatch.setattr(sys, "argv", ["rrl", *begun])
    main()
    yield settings
    sys.modules.pop(MODULE, None)


def test_a_margin_that_was_changed_is_found(
    own: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    verify = ["evaluate", "verify=a", *own]
    monkeypatch.setattr(sys, "argv", ["rrl", *verify])
    capsys.readouterr()
    main()
    assert "48 rows made again, as they were" in capsys.readouterr().out

    (file,) = tmp_path.glob("runs/a/stages/evaluate-*/rows/pgd2-*/*.parquet")
    table, about = from_bytes(file.read_bytes(), file.name)
    rows = rows_of(table)
    changed = replace(rows[3], margin=rows[3].margin + 0.5)
    rows[3] = changed
    file.write_bytes(to_bytes(table_of(rows), about))
    line = refused_and_told(verify, monkeypatch, capsys)
    assert line[0].endswith("48 rows made again, 1 otherwise")
    told = f"{changed.component}, image {changed.index}: margin was {changed.margin}"
    assert line[1].startswith(f"{told} and is ")
    assert "1 rows of" in line[2]


def test_a_call_from_python_is_told_how_it_is_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(tmp_path / "mine" / MANIFEST, {})
    words = ["evaluate", f"verify={tmp_path / 'mine'}", "cluster=debug"]
    line = refused(words, monkeypatch, capsys)
    assert "was evaluated from Python" in line
    assert "call rrl_dist.evaluate.evaluate again with another out=" in line


def refused_and_told(
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> list[str]:
    """The lines before the one that the command ends with, and that one."""
    monkeypatch.setattr(sys, "argv", ["rrl", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    printed = capsys.readouterr()
    lines = [line.strip() for line in printed.out.strip().splitlines()]
    return [*lines, printed.err.strip()]
