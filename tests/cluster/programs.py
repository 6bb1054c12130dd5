"""Programs that stand in for those that are not to be had here."""

from pathlib import Path

PATIENCE = 60  # seconds, for whatever a test waits for


def program(path: Path, text: str) -> None:
    """Write a script that can be run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
