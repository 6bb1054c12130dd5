"""A run whose workers are killed at any point, also while they write and copy."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_forty_faults_lose_no_checkpoint(tmp_path: Path, s3: str) -> None:
    # In a process of its own, which forks: this one has threads.
    command = [sys.executable, "-m", "tests.training.faults", "40", str(tmp_path), s3]
    found = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "40 faults in" in found.stdout
