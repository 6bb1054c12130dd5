"""A command in this process, and the one line that it answered a mistake with."""

import pytest

from rrl_dist.cli.main import main


def refused(
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> str:
    """Run `rrl ARGUMENTS`: it must end with status 2 and this one line on stderr."""
    monkeypatch.setattr("sys.argv", ["rrl", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    line = capsys.readouterr().err.strip()
    assert ended.value.code == 2, line
    assert line.startswith(f"rrl {arguments[0]}: ")
    assert "\n" not in line, line
    return line
