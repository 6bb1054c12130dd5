"""Storage that one node of a cluster has in another place, or not at all."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rrl_dist.training.nodes import answer
from tests.cli.harness import TINY, rrl
from tests.mistakes.listing import told

# In a process of its own: Ray reads a cluster's token once in a process.
ASK = """
import sys, time
from pathlib import Path
import ray
from rrl_dist.core.errors import UserError
from rrl_dist.training.cluster import session
from rrl_dist.training.nodes import check_nodes

config = {"kind": "auto", "workers": 1, "threads": 1, "gpu": False}
with session(config):
    deadline = time.monotonic() + 90
    while len(ray.nodes()) < 2:
        assert time.monotonic() < deadline, "the second node never came"
        time.sleep(0.2)
    for folder in sys.argv[1:]:
        try:
            check_nodes(Path(folder), gpu=False)
            print(f"{folder}: fine")
        except UserError as error:
            print(error)
"""


@dataclass(frozen=True)
class Cluster:
    """Two nodes: one sees `hidden` as it is, the other an empty folder there."""

    hidden: Path
    shared: Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def node(*arguments: str, apart: str = "") -> "subprocess.Popen[bytes]":
    """A node that lives as long as its process; `apart` runs before it, in a mount
    namespace of its own."""
    ray = Path(sys.executable).with_name("ray")
    common = ["--block", "--num-cpus=1", "--object-store-memory=80000000"]
    start = [str(ray), "start", "--node-ip-address=127.0.0.1", *common, *arguments]
    if apart:
        start = [
            "unshare",
            "--mount",
            "sh",
            "-c",
            f"{apart} && exec {shlex.join(start)}",
        ]
    return subprocess.Popen(
        start,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0"},
    )


def end(process: "subprocess.Popen[bytes]") -> None:
    """With all that it started."""
    process.send_signal(signal.SIGTERM)
    try:
        process.communicate(timeout=20)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("no right to give a node other folders")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        pytest.skip("no right to give a node other folders")
    # Sockets lie in it, whose paths must be short.
    own = tmp_path_factory.mktemp("n")
    hidden, shared = own / "hidden", own / "shared"
    hidden.mkdir()
    shared.mkdir()
    port = free_port()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
        environment.setenv("RAY_AUTH_MODE", "token")
        environment.setenv("RAY_AUTH_TOKEN", uuid.uuid4().hex)
        yield from two_nodes(own, port, hidden, shared)


def two_nodes(own: Path, port: int, hidden: Path, shared: Path) -> Iterator[Cluster]:
    head = node(
        "--head",
        f"--port={port}",
        f"--ray-client-server-port={free_port()}",
        "--include-dashboard=false",
        f"--temp-dir={own / 'a'}",
    )
    nodes = [head]
    try:
        wait_for_port(head, port)
        nodes.append(
            node(
                f"--address=127.0.0.1:{port}",
                f"--temp-dir={own / 'b'}",
                apart=f"mount -t tmpfs tmpfs {hidden}",
            )
        )
        yield Cluster(hidden, shared)
    finally:
        for process in reversed(nodes):
            end(process)


def wait_for_port(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + 90
    while True:
        assert process.poll() is None, process.communicate()[0].decode()
        assert time.monotonic() < deadline
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)


@pytest.mark.slow
def test_every_node_is_asked(cluster: Cluster) -> None:
    asked = [sys.executable, "-c", ASK, str(cluster.shared), str(cluster.hidden)]
    found = subprocess.run(asked, capture_output=True, text=True, timeout=200)
    lines = found.stdout.splitlines()
    assert lines[:1] == [f"{cluster.shared}: fine"], found.stdout + found.stderr
    assert "does not have that folder" in lines[1]
    assert not list(cluster.shared.iterdir())
    assert not list(cluster.hidden.iterdir())


@pytest.mark.slow
def test_storage_that_a_node_cannot_read(cluster: Cluster) -> None:
    auto = ("cluster=auto", "cluster.workers=2", "cluster.threads=1", "loader=memory")
    printed = rrl(cluster.hidden, "run", *TINY, *auto, status=2)
    assert "Traceback" not in printed
    line = printed.strip().splitlines()[-1]
    line = re.sub(r"node \S+ \([\d.]+\)", "node NAME (ADDRESS)", line)
    command = "rrl run experiment=demo cluster=auto"
    told("storage that a node cannot read", command, line, folder=cluster.hidden)
    assert not list(cluster.hidden.rglob("checkpoints"))


def test_what_a_node_answers(tmp_path: Path) -> None:
    asked = tmp_path / ".asked-token"
    assert "does not have that folder" in answer(str(tmp_path), "token", "node", False)
    asked.write_text("another")
    assert "reads another file" in answer(str(tmp_path), "token", "node", False)
    asked.write_text("token")
    (tmp_path / ".answered-token-node").mkdir()
    assert "cannot use it" in answer(str(tmp_path), "token", "node", False)
    (tmp_path / ".answered-token-node").rmdir()
    assert answer(str(tmp_path), "token", "node", False) == ""
    assert (tmp_path / ".answered-token-node").read_text() == "token"
