"""The `rrl` command as a person runs it: in a process of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

# Every stage of the demo, each a handful of steps.
# The probe is small enough already: digits hold 145 validation images.
TINY = (
    "experiment=demo",
    "model.backbone.width=4",
    "arms.simclr.train.epochs=1.5",
    "arms.simclr.train.checkpoint_every=2",
    "arms.deacl.train.epochs=1.5",
    "arms.deacl.train.checkpoint_every=2",
    "protocol.train.epochs=3",
    "protocol.train.checkpoint_every=4",
    "evaluate.limit=70",
    "suite.curve.relative_eps=[1.0]",
    "suite.attacks.apgd_ce.steps=10",
)


def start(
    folder: Path, *arguments: str, marked: str = "", own_session: bool = False
) -> "subprocess.Popen[str]":
    """Start `rrl ARGUMENTS` with everything it keeps under `folder`.

    Args:
        marked: kept in RRL_MARK, in the environment of every process that comes of it.
        own_session: apart from this process and its terminal.
    """
    places = {"storage": "runs", "betons": "betons"}
    if arguments[0] == "prepare":
        del places["storage"]
    if arguments[0] == "report" or arguments[:2] == ("tune", "show"):
        del places["betons"]
    own = [f"{key}={folder / name}" for key, name in places.items()]
    options = [n for n, word in enumerate(arguments) if word.startswith("--")]
    before = min(options, default=len(arguments))  # settings stand before options
    words = [*arguments[:before], *own, *arguments[before:]]
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "rrl_dist.cli.main", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "COLUMNS": "100", "RRL_MARK": marked},
        start_new_session=own_session,
    )


def rrl(folder: Path, *arguments: str, status: int = 0) -> str:
    """Run to the end and return what was printed."""
    process = start(folder, *arguments)
    printed, _ = process.communicate(timeout=900)
    assert process.returncode == status, printed
    return printed


def kill_when(folder: Path, pattern: str, arguments: Sequence[str]) -> None:
    """Start a run, and kill -9 it as soon as a file matches `pattern`."""
    process = start(folder, *arguments)
    deadline = time.monotonic() + 600
    while not any(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, f"{pattern} never came"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
