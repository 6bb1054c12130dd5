"""The folder of a run: one lock, one configuration, one folder for each stage."""

import fcntl
import os
import platform
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from rrl_dist.core.errors import UserError
from rrl_dist.core.interrupts import check_answered
from rrl_dist.core.storage import (
    read_json,
    value_hash,
    write_bytes,
    write_json,
    writing,
)

_RUN = "run.json"
_TICK = 1.0  # seconds between two looks at the clock
_PACKAGES = ("rrl_dist", "torch", "torchvision", "timm", "ray", "ffcv", "numpy")


@contextmanager
def open_run(
    folder: Path, experiment: Mapping[str, Any], config_yaml: str
) -> Iterator[None]:
    """Hold a run's folder, and note in it what run it is.

    Args:
        folder: the run directory; it need not exist.
        experiment: what makes this experiment another one than that of a neighbour; its
            settings may change from start to start.
        config_yaml: the whole configuration of the attempt that begins.

    Raises:
        UserError: the folder holds another experiment, or no run; another process holds
            it; it cannot be written.
    """
    _check_own(folder)
    with locked(folder):
        _check_same(folder, experiment)
        write_json(folder / _RUN, {"experiment": dict(experiment)})
        write_bytes(folder / "config.yaml", config_yaml.encode())
        write_json(folder / "environment.json", environment())
        yield


def _check_own(folder: Path) -> None:
    """Nothing is written into a folder of someone's other files."""
    with writing(folder):
        names = sorted(os.listdir(folder)) if folder.exists() else []
    # What an attempt leaves that was killed as it began.
    left = [n for n in names if n != ".lock" and not n.startswith(f".{_RUN}.")]
    if left and _RUN not in left:
        raise UserError(
            f"{folder} is not the folder of a run: it holds {left[0]}; choose another "
            "name= or storage="
        )


def _check_same(folder: Path, experiment: Mapping[str, Any]) -> None:
    """An attempt that ended before its first stage holds no name."""
    file = folder / _RUN
    if not file.is_file() or not (folder / "stages").is_dir():
        return
    try:
        before = dict(read_json(file)["experiment"])
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{file} is damaged; choose another name=, or remove {folder}"
        ) from None
    for key, now in experiment.items():
        then = before.get(key)
        if then != now:
            raise UserError(
                f"{folder} holds another experiment ({key}: {_in_words(then)}; here: "
                f"{_in_words(now)}); choose another name=, or remove that folder"
            )


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} ({inner})" for key, inner in value.items())
    return str(value)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's folder; the system lets go of it when the process ends, however.

    Raises:
        UserError: another process holds it.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / ".lock").open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{folder} is held by a run that is still going; wait, or set name="
            ) from None
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise UserError(
                f"{folder} cannot be locked ({reason}); mount its file system with "
                "locks, or set storage="
            ) from None
        yield


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
        check_answered()
        about = {"settings": dict(self.settings), "environment": environment()}
        write_json(self.path / "stage.json", about)
        with _meter(self.path / "cost.json", self.seconds):
            yield
        write_json(self.path / "done.json", {"identity": self.identity})


@contextmanager
def _meter(file: Path, before: float) -> Iterator[None]:
    """Keep the time spent on disk while it passes: a kill loses a second of it."""
    begin, stop = time.monotonic(), threading.Event()

    def write() -> None:
        write_json(file, {"seconds": round(before + time.monotonic() - begin, 1)})

    def tick() -> None:
        while not stop.wait(_TICK):
            with suppress(UserError):  # told of where the stage's own files are
                write()

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        _end(thread, stop)
        with suppress(UserError):  # what ended the stage is told of instead
            write()
        raise
    _end(thread, stop)
    write()


def _end(thread: threading.Thread, stop: threading.Event) -> None:
    stop.set()
    thread.join()
