"""Files of FFCV's format, .beton: their names, writing and checking.

Nothing here imports FFCV. Writing runs in a process of its own, so that FFCV's and
numba's threads never come into the caller's.
"""

import json
import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np

from rrl_dist.core.errors import UserError
from rrl_dist.core.interrupts import unheard_by_children
from rrl_dist.core.storage import FULL, atomic_path
from rrl_dist.data.beton_layout import (
    ALLOCATION,
    FIELD,
    FIELDS,
    HEADER,
    SAMPLE,
    VERSION,
    data_start,
)
from rrl_dist.data.datasets import ImageSet

MODES = ("raw", "jpg")


def beton_path(folder: Path, image_set: ImageSet, mode: str) -> Path:
    """The file of a set: its name, the mode and the start of its fingerprint."""
    return folder / f"{image_set.name}-{mode}-{image_set.fingerprint[:16]}.beton"


def check_beton(path: Path, image_set: ImageSet) -> None:
    """Check that a file is whole and holds the set; pixels are not compared.

    Raises:
        UserError: naming the file, if it is missing, cut short or of another set.
    """
    if not path.is_file():
        raise UserError(f"no file {path}; write it with rrl prepare")
    problem = beton_problem(path, image_set)
    if problem is not None:
        raise UserError(f"{path} {problem}; write it again with rrl prepare")


def beton_problem(path: Path, image_set: ImageSet) -> str | None:
    """Why a file cannot serve as the set's, or None; pixels are not compared."""
    return _damage(path) or _difference(path, image_set)


def _damage(path: Path) -> str | None:
    """What is wrong with the file itself."""
    length = path.stat().st_size
    if length < HEADER.itemsize:
        return "is cut short"
    header = np.fromfile(path, HEADER, 1)[0]
    if header["version"] != VERSION or header["num_fields"] != len(FIELDS):
        return "is not a .beton file of images with label and index"
    count, table = int(header["num_samples"]), int(header["alloc_table_ptr"])
    if table < data_start(count) or length != table + count * ALLOCATION.itemsize:
        return "is cut short"
    described = np.fromfile(path, FIELD, len(FIELDS), offset=HEADER.itemsize)
    names = [bytes(field["name"]).rstrip(b"\0").decode("latin1") for field in described]
    if list(zip(described["type_id"].tolist(), names, strict=True)) != FIELDS:
        return "is not a .beton file of images with label and index"
    places = np.fromfile(path, ALLOCATION, count, offset=table)
    if count and int((places["ptr"] + places["size"]).max()) > table:
        return "is damaged"
    return None


def _difference(path: Path, image_set: ImageSet) -> str | None:
    """How a whole file differs from the set."""
    count = int(np.fromfile(path, HEADER, 1)[0]["num_samples"])
    if count != len(image_set):
        return f"holds {count} images where {image_set.name} has {len(image_set)}"
    found = np.fromfile(path, SAMPLE, count, offset=data_start(0))
    sides = {*found["image"]["width"].tolist(), *found["image"]["height"].tolist()}
    if sides != {image_set.size}:
        return f"holds images of {max(sides)} px where data.size={image_set.size}"
    same_labels = np.array_equal(found["label"], image_set.labels)
    if not same_labels or not np.array_equal(found["index"], image_set.index):
        return f"holds other samples than {image_set.name}"
    return None


def write_beton(
    image_set: ImageSet,
    path: Path,
    *,
    mode: str,
    quality: int,
    workers: int,
    progress: Callable[[int, int], None],
) -> None:
    """Write a set, read it back, compare, and only then give the file its name.

    Args:
        path: usually `beton_path(...)`.
        mode: "raw" stores pixels, "jpg" compresses them.
        quality: of JPEG, 1 to 100.
        workers: threads that decode.
        progress: called with (done, total); each image counts twice, once written
            and once read back.

    Raises:
        UserError: if the set has an image that cannot be read, FFCV is missing, or
            the disk refuses the file.
        RuntimeError: if the file does not give back what was written. In each case
            nothing is left.
    """
    if mode not in MODES:
        raise UserError(f"no mode {mode!r}; choose one of {', '.join(MODES)}")
    with atomic_path(path) as temporary:
        job = (image_set, temporary, mode, quality, workers)
        _run_in_process(job, progress)
        check_beton(temporary, image_set)


def _run_in_process(job: tuple[Any, ...], progress: Callable[[int, int], None]) -> None:
    """Run `_write` in a fresh interpreter, which does not import the caller's main."""
    search = [folder for folder in sys.path if folder]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(search)}
    with tempfile.TemporaryFile() as noise:
        with unheard_by_children():
            process = subprocess.Popen(
                [sys.executable, "-m", __name__],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=noise,
            )
        with process:
            try:
                finished = _talk(process, job, progress)
            finally:
                process.kill()
                status = process.wait()
        if not finished:
            noise.seek(0)
            lines = noise.read().decode(errors="replace").strip().splitlines()
            reason = lines[-1] if lines else f"exit status {status}"
            raise RuntimeError(f"the process that writes .beton files died: {reason}")


def _talk(
    process: "subprocess.Popen[bytes]",
    job: tuple[Any, ...],
    progress: Callable[[int, int], None],
) -> bool:
    """Hand over the job and follow it; false if the process stopped midway."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with process.stdin as pipe:
            pickle.dump(job, pipe, protocol=pickle.HIGHEST_PROTOCOL)
    except BrokenPipeError:
        return False
    for line in process.stdout:
        message = json.loads(line)
        if "disk" in message:  # `atomic_path` says which file
            raise OSError(message["disk"], os.strerror(message["disk"]))
        if "user_error" in message:
            raise UserError(message["user_error"])
        if "error" in message:
            raise RuntimeError(message["error"])
        if "finished" in message:
            return True
        progress(message["done"], message["total"])
    return False


def _serve() -> None:
    """The other end of `_talk`."""
    # Libraries print; only our lines may reach the caller.
    with os.fdopen(os.dup(1), "w", buffering=1) as answer:
        os.dup2(2, 1)
        job = pickle.load(sys.stdin.buffer)
        try:
            _write(*job, answer=answer)
            message: dict[str, str | int] = {"finished": True}
        except (UserError, OSError, ImportError) as error:
            message = {"user_error": _line(error)}
            if isinstance(error, OSError) and error.errno in FULL:
                message = {"disk": error.errno}
        except Exception as error:
            message = {"error": _line(error)}
        answer.write(json.dumps(message) + "\n")


def _line(error: BaseException) -> str:
    text = (str(error).splitlines() or [""])[0]
    if isinstance(error, ImportError):
        return f"FFCV cannot be imported ({text}); set loader=memory"
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


def _write(
    image_set: ImageSet,
    path: Path,
    mode: str,
    quality: int,
    workers: int,
    *,
    answer: IO[str],
) -> None:
    from rrl_dist.data.ffcv_writer import compare_file, write_file

    count = len(image_set)

    def tell(done: int) -> None:
        if done % 512 == 0 or done in (count, 2 * count):
            answer.write(json.dumps({"done": done, "total": 2 * count}) + "\n")

    write_file(
        image_set, path, mode=mode, quality=quality, threads=workers, progress=tell
    )
    compare_file(
        image_set,
        path,
        mode=mode,
        threads=workers,
        progress=lambda done: tell(count + done),
    )


if __name__ == "__main__":
    _serve()
