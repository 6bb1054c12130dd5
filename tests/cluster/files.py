"""The files of cluster/ and docker/, as the tests read them."""

import gzip
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SCHEMAS = Path(__file__).parent / "schemas"
_PUT_IN = re.compile(r"^#   ([A-Z][A-Z_]+) {2,}", re.MULTILINE)
_CAPITALS = re.compile(r"(?<![\w$/-])[A-Z][A-Z_]{2,}(?![\w-])")


def parsed(name: str) -> Any:
    """The one document of a YAML file."""
    return yaml.safe_load((ROOT / name).read_text())


def schema(name: str) -> Any:
    """Of tests/cluster/schemas."""
    content = (SCHEMAS / name).read_bytes()
    return json.loads(gzip.decompress(content) if name.endswith(".gz") else content)


def put_in(name: str) -> set[str]:
    """What the head of a file asks its reader to put in."""
    return set(_PUT_IN.findall((ROOT / name).read_text()))


def strings(value: Any) -> list[str]:
    """All text in a parsed file, keys included."""
    if isinstance(value, dict):
        return [
            text for pair in value.items() for part in pair for text in strings(part)
        ]
    if isinstance(value, list):
        return [text for part in value for text in strings(part)]
    return [value] if isinstance(value, str) else []


def capitals(value: Any) -> set[str]:
    """Words of a parsed file that stand for what a reader puts in, or look as if."""
    return {word for text in strings(value) for word in _CAPITALS.findall(text)}


def tool(name: str) -> str:
    """A program of the dev extra, or on the path; skips where there is none."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed; docker/install.sh dev does it")
    return found
