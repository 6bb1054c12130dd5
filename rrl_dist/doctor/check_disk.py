"""Room on the disks that a run writes on, and whether they take what is written."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import writing
from rrl_dist.doctor.finding import Asked, Finding, Seen, fail, failed, ok

_TRIED = 1 << 20  # bytes that are written
_RAYS_LIMIT = 0.95  # Ray puts nothing on a disk that is fuller, and tasks wait for ever
_MEND = "make room there, or choose another folder"

Place = tuple[str, Path]


def look(asked: Asked) -> Seen:
    """Each disk is told of once, with all that lies on it."""
    disks: dict[int, list[Place]] = {}
    for what, folder in _places(asked):
        disk = _existing(folder).stat().st_dev
        disks.setdefault(disk, []).append((what, folder))
    wrong = [f for places in disks.values() for f in _of_disk(places, asked)]
    fine = ok(f"every disk has {asked.disk_gb:g} GB free or more, and takes files")
    return Seen(tuple(wrong or [fine]))


def _places(asked: Asked) -> list[Place]:
    found = [("storage", asked.storage), ("betons", asked.betons)]
    if asked.ray_folder is not None:
        found.append(("Ray's files", asked.ray_folder))
    found += [("temporary files", tempfile.gettempdir()), ("home", str(Path.home()))]
    return [(what, Path(folder)) for what, folder in found]


def _existing(folder: Path) -> Path:
    """The folder that it is, or will be, made in."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    return folder


def _of_disk(places: list[Place], asked: Asked) -> Iterator[Finding]:
    named = ", ".join(f"{what} in {folder}" for what, folder in places)
    usage = shutil.disk_usage(_existing(places[0][1]))
    used = 1 - usage.free / usage.total if usage.total else 0.0
    if usage.free < asked.disk_gb * 1e9:
        yield fail(f"the disk is full: {usage.free / 1e9:.1f} GB free ({named})", _MEND)
    elif used > _RAYS_LIMIT and any(what == "Ray's files" for what, _ in places):
        told = f"the disk is {used:.0%} full, and Ray writes nothing there ({named})"
        yield fail(told, "make room there, or ray start --temp-dir=FOLDER")
    else:
        written = (p for p in places if p[0] not in ("betons", "home"))
        for what, folder in written:
            yield from _try(what, folder)


def _try(what: str, folder: Path) -> Iterator[Finding]:
    place = _existing(folder)
    try:
        with writing(place), tempfile.TemporaryFile(dir=place) as file:
            file.write(bytes(_TRIED))
            file.flush()
            os.fsync(file.fileno())
    except (UserError, OSError) as error:
        found = failed(error)
        yield fail(f"{what}: {found.found}", found.mend)
