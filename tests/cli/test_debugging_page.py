"""The debugger's session in docs/debugging.md, typed again."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_readme import blocks

PAGE = "docs/debugging.md"
ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_session_of_the_page_goes_as_it_says(tmp_path: Path) -> None:
    command = blocks(PAGE, "sh")[0].replace("\\\n", " ")
    session = blocks(PAGE, "text")[0]
    typed = re.findall(r"^\(Pdb\) (.*)$", session, re.MULTILINE)
    words = [*shlex.split(command)[1:], f"storage={tmp_path}", "cluster.threads=1"]
    ended = subprocess.run(
        [sys.executable, *words],
        input="\n".join(typed) + "\n",
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )
    shown = ended.stdout.replace(f"{ROOT}/", "")
    answers = [line for line in session.splitlines() if not line.startswith("(Pdb)")]
    # Features differ in their last digits from processor to processor.
    exact = [line for line in answers if "grad_fn" not in line]
    assert len(exact) > 6
    for line in exact:
        assert line in shown, shown + ended.stderr
