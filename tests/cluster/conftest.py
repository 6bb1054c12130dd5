"""What the tests of scripts share."""

from pathlib import Path

import pytest

from tests.cluster.files import ROOT
from tests.cluster.programs import program


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of cluster/'s scripts, with a `ray` that writes down what it is told."""
    for name in ("node.sh", "notice.sh", "slurm.sh"):
        script = (ROOT / "cluster" / name).read_text()
        program(tmp_path / "cluster" / name, script)
    said = tmp_path / "said"
    writes = f'echo "$@" >>{said}\nenv >>{said}'
    program(tmp_path / ".venv/bin/ray", f"#!/bin/sh\n{writes}\n")
    return tmp_path
