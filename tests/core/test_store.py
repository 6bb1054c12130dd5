import errno
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pyarrow import fs

from rrl_dist.core import store as module
from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import write_json
from rrl_dist.core.store import Store, open_store
from tests.core.s3 import call, free_port

MANY_WRITES = """
import sys
from rrl_dist.core.store import open_store

store = open_store(sys.argv[1])
for number in range(100_000):
    size = 200_000 if number % 2 else 6_000_000
    store.write(f"many/{number % 8}", bytes([number % 251]) * size)
    print(number, flush=True)
"""


def below(address: str, folder: str) -> str:
    body, _, query = address.partition("?")
    return f"{body}/{folder}?{query}"


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store of either kind."""
    if request.param == "local":
        return str(tmp_path / "store")
    return below(request.getfixturevalue("s3"), tmp_path.name)


@pytest.fixture
def store(address: str) -> Store:
    return open_store(address)


def refusal(store: Store, *secrets: str) -> str:
    """The one line that a store which cannot be used answers with."""
    with pytest.raises(UserError) as caught:
        store.write("name", b"content")
    line = str(caught.value)
    assert "\n" not in line
    assert not any(secret in line for secret in secrets)
    return line


def test_what_was_written_last_is_read(store: Store) -> None:
    for content in (b"old", b"", b"newer than both", bytes(range(256)) * 40_000):
        store.write("deep/er/file", content)
        assert store.read("deep/er/file") == content
    assert store.exists("deep/er/file")
    assert store.names() == ["deep/er/file"]


def test_names_are_of_files_at_any_depth(store: Store) -> None:
    assert store.names() == store.names("rows") == []
    for name in ("rows/b", "rows/a/z", "rows/a/y", "rowsmore", "odd name=ü%20#?.json"):
        store.write(name, b"1")
    assert store.names("rows") == ["rows/a/y", "rows/a/z", "rows/b"]
    assert store.names("rows/a") == ["rows/a/y", "rows/a/z"]
    assert store.names("rows/b") == store.names("row") == []
    assert store.read("odd name=ü%20#?.json") == b"1"
    assert not store.exists("rows/a")


def test_removing_twice_is_as_once(store: Store) -> None:
    store.write("a/b", b"1")
    for _ in range(2):
        store.remove("a/b")
        assert not store.exists("a/b")
        assert store.names() == []
    with pytest.raises(FileNotFoundError):
        store.read("a/b")


def test_json_has_the_layout_of_storage(store: Store, tmp_path: Path) -> None:
    value = {"b": [1, None], "a": {"y": 0.1, "x": "ü"}}
    write_json(tmp_path / "value.json", value)
    store.write_json("value.json", value)
    assert store.read("value.json") == (tmp_path / "value.json").read_bytes()
    assert store.read_json("value.json") == value
    with pytest.raises(ValueError, match="Out of range"):
        store.write_json("value.json", {"bad": float("nan")})
    assert store.read_json("value.json") == value


@pytest.mark.parametrize(
    "name", ["", "/a", "a/", "../a", "a/../b", "./a", ".a", "a/.b"]
)
def test_a_name_stays_in_the_store_and_is_not_temporary(
    tmp_path: Path, name: str
) -> None:
    store = open_store(tmp_path)
    for use in (store.read, store.exists, store.remove, lambda n: store.write(n, b"")):
        with pytest.raises(ValueError, match="no name of a file"):
            use(name)


def test_a_store_travels(store: Store) -> None:
    store.write("a", b"1")
    other = pickle.loads(pickle.dumps(store))
    assert other.read("a") == b"1"


def test_writers_of_one_name_leave_one_whole_content(store: Store) -> None:
    contents = [bytes([number]) * (1000 + 777 * number) for number in range(4)]
    threads = [
        threading.Thread(
            target=lambda c: [store.write("a", c) for _ in range(5)], args=[c]
        )
        for c in contents
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        if store.exists("a"):
            assert store.read("a") in contents
    assert store.read("a") in contents
    assert store.names() == ["a"]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_an_ended_writer_leaves_whole_files(
    address: str, store: Store, number: int
) -> None:
    command = [sys.executable, "-c", MANY_WRITES, address]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout is not None
        for _ in range(11):
            assert process.stdout.readline()
        process.send_signal(number)
    for name in store.names():
        content = store.read(name)
        assert len(content) in (200_000, 6_000_000)
        assert len(set(content)) == 1
    assert len(store.names("many")) == 8


def test_a_file_address_is_a_local_path(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/a%20b")
    store.write("c", b"1")
    assert (tmp_path / "a b" / "c").read_bytes() == b"1"
    (tmp_path / "a b" / ".c.0123").write_bytes(b"ha")
    assert store.names() == ["c"]
    assert store == open_store(tmp_path / "a b")
    assert store.address == str(tmp_path / "a b")


def test_a_full_disk_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    store.write("name", b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert "no space left on device" in refusal(store)
    assert store.read("name") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["name"]


@pytest.mark.parametrize(
    "address",
    [
        "nowhere://KEY:HUSH@bucket/x",
        "s3://KEY:HUSH@",
        "s3://KEY:SE/HUSH@bucket/x?endpoint_override=h&nonsense=HUSH",
        "s3://bucket/x?secret_key=HUSH&access_key=KEY",
        "s3://KEY:HUSH@[bad/x",
        "file://host/x",
        "gs://bucket/x?nonsense=HUSH",
    ],
)
def test_a_wrong_address_is_told_of_without_its_secrets(address: str) -> None:
    with pytest.raises(UserError) as caught:
        open_store(address)
    assert not re.search("\n|HUSH|KEY:", str(caught.value))
    assert "HUSH" not in "".join(traceback.format_exception(caught.value))


def test_credentials_are_not_shown() -> None:
    store = open_store(
        "s3://KEY:HU%2FSH@bucket/x?endpoint_override=u:HUSH@127.0.0.1:9&scheme=http"
    )
    assert store.address == ("s3://bucket/x?endpoint_override=127.0.0.1:9&scheme=http")
    assert not re.search("KEY|SH", repr(store))


def unanswered(port: int) -> Store:
    options = f"endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"
    return open_store(f"s3://KEY:HUSH@bucket/x?{options}")


@pytest.mark.slow
@pytest.mark.parametrize("listening", [False, True])
def test_an_endpoint_that_does_not_answer_is_told_of_soon(
    listening: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1] if listening else free_port()
        begin = time.monotonic()
        line = refusal(unanswered(port), "KEY", "HUSH")
    assert "does not answer" in line
    assert time.monotonic() - begin < 20


@pytest.mark.slow
def test_a_missing_bucket_is_told_of(s3: str) -> None:
    store = open_store(s3.replace("//bucket", "//missing"))
    assert "no such bucket" in refusal(store)
    for use in (store.read, store.exists, store.names):
        with pytest.raises(UserError, match="no such bucket"):
            use("a")


@pytest.mark.slow
def test_denied_credentials_are_told_of(s3: str) -> None:
    server = f"http://{urlsplit(s3).query.partition('=')[2].partition('&')[0]}"
    store = open_store(below(s3, "denied").replace("://", "://NOBODY:HUSH@"))
    call(f"{server}/moto-api/reset-auth", "POST", b"0")
    try:
        assert "access is denied" in refusal(store, "NOBODY", "HUSH")
    finally:
        call(f"{server}/moto-api/reset-auth", "POST", b"inf")
    store.write("a", b"1")


@pytest.mark.slow
@pytest.mark.parametrize("size", [50, 150])
def test_an_object_replaced_while_it_is_read_comes_whole(
    s3: str, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    store = open_store(below(s3, f"replaced{size}"))
    store.write("a", b"o" * 100)
    real, replaced = module._content, []

    def late(stream: Any) -> Any:
        if not replaced:
            replaced.append(True)
            store.write("a", b"n" * size)
        return real(stream)

    monkeypatch.setattr(module, "_content", late)
    assert store.read("a") == b"n" * size


@pytest.mark.slow
def test_damage_is_told_of_and_a_copy_is_read(
    s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(below(s3, "damaged"))
    for proof, found in (("text/plain", "read"), ("a; sha256=0", "damaged")):
        with monkeypatch.context() as patch:
            patch.setattr(module, "_proof", lambda content, proof=proof: proof)
            store.write(found, b"content")
    assert store.read("read") == b"content"
    with pytest.raises(UserError, match=r"\(damaged is damaged\); remove it"):
        store.read("damaged")


@pytest.mark.slow
def test_ctrl_c_does_not_publish_half(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that an exception drops would publish what it has: here, nothing."""
    store, real = open_store(below(s3, "interrupted")), module._put
    store.write("a", b"old")

    def interrupted(system: fs.FileSystem, path: str, content: bytes) -> None:
        class Opening:
            def open_output_stream(self, path: str, **about: Any) -> Any:
                stream = system.open_output_stream(path, **about)
                signal.raise_signal(signal.SIGINT)
                return stream

        real(Opening(), path, content)

    monkeypatch.setattr(module, "_put", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.write("a", b"new")
    assert store.read("a") == b"new"
