"""The folder of a run: one lock, one configuration, one folder for each stage."""

import fcntl
import os
import platform
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import read_json, value_hash, write_bytes, write_json

_PACKAGES = ("rrl_dist", "torch", "torchvision", "timm", "ray", "ffcv", "numpy")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's folder; the system lets go of it when the process ends, however.

    Raises:
        UserError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{folder} is held by a run that is still going; wait, or set name="
            ) from None
        yield


def describe_run(folder: Path, config_yaml: str) -> None:
    """Write `config.yaml` and `environment.json` of the attempt that begins."""
    write_bytes(folder / "config.yaml", config_yaml.encode())
    write_json(folder / "environment.json", environment())


def environment() -> dict[str, Any]:
    """Commit, versions and devices, for the record."""
    devices = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "commit": _commit(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "gpus": devices,
        "versions": {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Commit of the source tree, with "+" if it was changed; None outside of one."""
    source = Path(__file__).parents[2]
    if not (source / ".git").exists():
        return None
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+"],
            cwd=source,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


@dataclass(frozen=True)
class StageFolder:
    """Where one stage keeps its files; settings that it depends on name it.

    So changed settings mean another folder and a new run of the stage, the old
    results stay, and setting them back finds them again.

    Attributes:
        name: such as "pretrain-deacl".
        identity: hash of all that the stage's result depends on.
        path: its folder.
        settings: what `identity` is the hash of; kept in `stage.json` with the
            environment of the last attempt.
    """

    name: str
    identity: str
    path: Path
    settings: Mapping[str, Any]

    @classmethod
    def of(cls, run: Path, name: str, settings: Mapping[str, Any]) -> "StageFolder":
        """The folder of a stage with these settings; it need not exist yet."""
        try:
            identity = value_hash(settings)
        except ValueError:
            raise UserError(f"{name}: a setting is NaN or infinite") from None
        path = run / "stages" / f"{name}-{identity[:12]}"
        return cls(name, identity, path, settings)

    @property
    def done(self) -> bool:
        """Whether the stage ended."""
        return (self.path / "done.json").is_file()

    @property
    def seconds(self) -> float:
        """Time spent in it, all attempts together."""
        file = self.path / "cost.json"
        return float(read_json(file)["seconds"]) if file.is_file() else 0.0

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Time an attempt, and mark the stage done if the block succeeds."""
        about = {"settings": dict(self.settings), "environment": environment()}
        write_json(self.path / "stage.json", about)
        with _meter(self.path / "cost.json", self.seconds):
            yield
        write_json(self.path / "done.json", {"identity": self.identity})


@contextmanager
def _meter(file: Path, before: float) -> Iterator[None]:
    """Keep the time spent on disk while it passes: a kill loses seconds of it."""
    begin, stop = time.monotonic(), threading.Event()

    def write() -> None:
        write_json(file, {"seconds": round(before + time.monotonic() - begin, 1)})

    def tick() -> None:
        while not stop.wait(5.0):
            write()

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        write()
