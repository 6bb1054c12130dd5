"""docs/mistakes.md: what was done wrong, and the line that the command answered.

The tests keep it: each calls `told`, which holds the line against the list. With
RRL_WRITE_LISTS=1 the line is written into the list instead.
"""

import fcntl
import os
import re
import tempfile
from pathlib import Path

LIST = Path(__file__).parents[2] / "docs" / "mistakes.md"
WRITES = bool(os.environ.get("RRL_WRITE_LISTS"))
HEAD = """\
# What a mistake is answered with

Each entry was provoked by a test, which holds the line below against what it got.
Folders are shortened to FOLDER.
"""
_ENTRY = re.compile(r"^## (?P<case>[^\n]+)\n\n```text\n(?P<text>.*?)```\n", re.M | re.S)


def told(case: str, command: str, line: str, *, folder: Path | None = None) -> None:
    """Hold one line against the list.

    Args:
        case: what is wrong, in a few words; unique in the list.
        command: what was run, shortened to what matters.
        line: all that was answered.
        folder: replaced by FOLDER in what is written.
    """
    line = line.strip()
    assert "\n" not in line, line
    assert "Traceback" not in line
    if folder is not None:
        line = line.replace(str(folder), "FOLDER")
    text = f"$ {command}\n{line}\n"
    if WRITES:
        _write(case, text)
    known = entries()
    assert known.get(case) == text, f"{case}: got\n{text}RRL_WRITE_LISTS=1 writes it"


def entries() -> dict[str, str]:
    """The list's entries: case to command and answer."""
    found = LIST.read_text() if LIST.is_file() else ""
    return {match["case"]: match["text"] for match in _ENTRY.finditer(found)}


def _write(case: str, text: str) -> None:
    LIST.parent.mkdir(exist_ok=True)
    with (Path(tempfile.gettempdir()) / "rrl-mistakes.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        merged = {**entries(), case: text}
        parts = [f"## {c}\n\n```text\n{t}```\n" for c, t in sorted(merged.items())]
        LIST.write_text("\n".join([HEAD, *parts]))
