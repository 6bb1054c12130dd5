"""Settings of an evaluation that cannot be meant: told before data are read."""

from pathlib import Path

import pytest

from tests.mistakes.commands import refused
from tests.mistakes.listing import told

# What is wrong, the command, what was typed, what the answer has to hold.
TOLD = [
    (
        "a rule for an early end that is none",
        "evaluate",
        'evaluate.stop_when="soon"',
        "is no rule; write",
    ),
    (
        "no images between two looks",
        "run",
        "evaluate.stop_every=0",
        "set a whole number of at least 1",
    ),
    (
        "units of a negative time",
        "evaluate",
        "evaluate.unit_seconds=-1",
        "set seconds above 0",
    ),
    (
        "units of no atoms",
        "evaluate",
        "evaluate.unit_atoms=0",
        "set a whole number of at least 1",
    ),
    (
        "rows at an address without its colon",
        "evaluate",
        "evaluate.rows=s3//bucket/rows",
        'write "s3://bucket/rows"',
    ),
    (
        "no images to verify",
        "evaluate",
        "evaluate.verify_samples=0",
        "set a whole number of at least 1",
    ),
    (
        "a verdict that is settled beforehand",
        "evaluate",
        "evaluate.verdict=pass",
        "set true, false or auto",
    ),
]


@pytest.mark.parametrize(
    ("case", "command", "typed", "match"), TOLD, ids=[case for case, *_ in TOLD]
)
def test_one_line_says_what_to_change(
    case: str,
    command: str,
    typed: str,
    match: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    # Images that are not there would be told of as soon as they were read.
    words = ["name=x", "cluster=debug", f"data.root={tmp_path / 'none'}"]
    words += ["experiment=demo"] if command == "run" else ["model=timm:resnet18"]
    words += ["data=cifar10"] if command == "evaluate" else []
    line = refused([command, *words, typed], monkeypatch, capsys)
    assert match in line
    told(case, f"rrl {command} {typed}", line, folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
