import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rrl_dist.core.storage import (
    atomic_path,
    file_hash,
    read_json,
    value_hash,
    write_bytes,
    write_json,
)

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=12,
)

HALF_WRITTEN = """
import sys, time
from pathlib import Path
from rrl_dist.core.storage import atomic_path

with atomic_path(Path(sys.argv[1])) as temporary:
    with temporary.open("wb") as file:
        file.write(b"new, but only ha")
        file.flush()
        print("half", flush=True)
        time.sleep(60)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_content_takes_the_name_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "file"
    write_bytes(path, b"old")
    with atomic_path(path) as temporary:
        temporary.write_bytes(b"new")
        assert temporary.parent == path.parent
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert names(path.parent) == ["file"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_the_old_content_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def fail_in_the_middle(temporary: Path) -> None:
        temporary.write_bytes(b"half")
        raise error

    for name in ("file", "never"):
        with pytest.raises(error), atomic_path(tmp_path / name) as temporary:
            fail_in_the_middle(temporary)
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_killed_writer_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_bytes(path, b"old")
    with subprocess.Popen(
        [sys.executable, "-c", HALF_WRITTEN, str(path)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half\n"
        process.send_signal(signal.SIGKILL)
    assert path.read_bytes() == b"old"
    # What is left of it looks like no file that anyone searches for.
    assert [p.name for p in tmp_path.glob("*.json")] == ["results.json"]
    assert all(n.startswith(".") for n in names(tmp_path) if n != "results.json")
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"


def test_others_may_read_what_the_umask_lets_them(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_bytes(tmp_path / "file", b"")
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
        assert os.umask(0o027) == 0o027
    finally:
        os.umask(before)


def test_writing_from_several_threads_keeps_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.umask
    before = real(0o022)

    def slow(mask: int) -> int:
        """Lets the other threads have their turn, as may happen at any time."""
        found = real(mask)
        time.sleep(0.001)
        return found

    def write(number: int) -> None:
        for _ in range(5):
            write_bytes(tmp_path / str(number), b"")

    monkeypatch.setattr(os, "umask", slow)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(4)))
        assert real(0o022) == 0o022
        modes = {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()}
        assert modes == {0o644}
    finally:
        real(before)


@settings(deadline=None, max_examples=50)
@given(value=json_values)
def test_json_comes_back_and_is_stable_in_bytes(tmp_path_factory, value) -> None:
    path = tmp_path_factory.getbasetemp() / "value.json"
    write_json(path, value)
    once = path.read_bytes()
    assert read_json(path) == value
    write_json(path, read_json(path))
    assert path.read_bytes() == once
    assert once.endswith(b"\n")


def test_the_order_of_keys_changes_neither_bytes_nor_hash(tmp_path: Path) -> None:
    forth = {"b": [1, 2], "a": {"y": None, "x": 0.1}}
    back = {"a": {"x": 0.1, "y": None}, "b": [1, 2]}
    for name, value in (("forth", forth), ("back", back)):
        write_json(tmp_path / name, value)
    assert (tmp_path / "forth").read_bytes() == (tmp_path / "back").read_bytes()
    assert value_hash(forth) == value_hash(back)
    others = [{**forth, "b": [2, 1]}, {**forth, "c": 0}, {**forth, "a": {}}]
    assert len({value_hash(other) for other in [forth, *others]}) == 4


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), object()])
def test_what_json_cannot_say_is_refused(tmp_path: Path, bad: object) -> None:
    path = tmp_path / "value.json"
    write_json(path, {"old": 1})
    with pytest.raises((ValueError, TypeError)):
        write_json(path, {"deep": [bad]})
    with pytest.raises((ValueError, TypeError)):
        value_hash({"deep": [bad]})
    assert json.loads(path.read_text()) == {"old": 1}
    assert names(tmp_path) == ["value.json"]


def test_file_hash_is_sha256_of_the_content(tmp_path: Path) -> None:
    content = bytes(range(256)) * 5000
    write_bytes(tmp_path / "file", content)
    assert file_hash(tmp_path / "file") == hashlib.sha256(content).hexdigest()
