"""Which code is installed: nodes that differ fail late, or compute something else."""

import hashlib
import platform
import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

import rrl_dist
from rrl_dist.doctor.finding import Asked, Finding, Seen, fail, ok, warn

_PACKAGES = (
    "rrl_dist",
    "torch",
    "torchvision",
    "timm",
    "ray",
    "ffcv",
    "deepspeed",
    "optuna",
    "hydra-core",
    "numpy",
    "pyarrow",
)
_SOURCES = Path(rrl_dist.__file__).parent
_CODE = "rrl_dist's code"
_NONE = "none"


def look(asked: Asked) -> Seen:
    """Versions, also held against those that were tested together, where the file that
    says so is there."""
    found = versions()
    pinned = _SOURCES.parent / "docker" / "constraints.txt"
    if pinned.is_file() and (others := _apart(found, _pins(pinned.read_text()))):
        told = f"not what was tested together: {others}"
        return Seen((warn(told, "set up again with docker/install.sh"),), found)
    named = [f"{name} {found[name]}" for name in ("python", "rrl_dist", "torch", "ray")]
    return Seen((ok(", ".join(named)),), found)


def compare(
    own: Mapping[str, str], nodes: Mapping[str, Mapping[str, str]]
) -> Iterator[tuple[str, Finding]]:
    """One finding for each node that has anything else than the driver."""
    for node, there in nodes.items():
        if others := _apart(there, own):
            mend = "set that node up again with docker/install.sh, or from one image"
            yield node, fail(f"not the driver's: {others}", mend)


def versions() -> dict[str, str]:
    """Of python and packages, and a hash of the sources of this one, which an editable
    installation has under one version whatever they are."""
    found = {name: _version(name) for name in _PACKAGES}
    return {"python": platform.python_version(), **found, _CODE: _sources_hash()}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return _NONE


def _sources_hash() -> str:
    digest = hashlib.sha256()
    for file in sorted(_SOURCES.rglob("*.py")):
        digest.update(file.relative_to(_SOURCES).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _pins(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE))


def _apart(found: Mapping[str, str], wanted: Mapping[str, str]) -> str:
    """What is installed in another version than is wanted; "" if nothing is. What is
    not installed is told of where it is asked for by other nodes alone."""
    told = [
        f"{name} {found[name]} ({wanted[name]})"
        for name in found
        if name in wanted and found[name] != wanted[name]
    ]
    return ", ".join(told)
