"""A Ray cluster of three nodes on this machine: the head, and two in network namespaces
of their own where that is allowed, which can be cut off and come back."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.evaluate.nodes import (
    NoClusterError,
    below,
    free_network,
    free_port,
    kill_all,
    succeeds,
)
from tests.training.slow import PAUSE

ROOT = Path(__file__).parents[2]
PATIENCE = 600  # seconds, for whatever a test waits for
CPUS = 1  # of each node
_WORKER = b"ray::RayTrainWorker"  # as Ray names the process
_NODE_ID = re.compile(rb"--node[-_]id=([0-9a-f]{56})")


@dataclass
class Node:
    """One of them.

    Attributes:
        space: its network namespace; empty for the head, and where there are none.
        wire: this machine's end of its cable; empty likewise.
        address, interface: in its namespace.
        processes: `ray start`, the newest last.
    """

    name: str
    space: str
    wire: str
    address: str
    interface: str
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def pids(self) -> list[int]:
        """Of all that runs there."""
        if self.space:
            inside = ["ip", "netns", "pids", self.space]
            return [*map(int, subprocess.check_output(inside).split())]
        return below(self.processes[-1].pid) if self.processes else []

    def workers(self) -> list[int]:
        """Processes of workers in training there."""
        return [pid for pid in self.pids() if _title(pid).startswith(_WORKER)]

    def cut(self) -> None:
        """Off from the others, without a word; without namespaces, it ends."""
        if self.space:
            assert succeeds("ip", "link", "set", self.wire, "down")
        else:
            self.end()

    def ray_id(self) -> str:
        """Of this node, as Ray's own processes are told it."""
        titles = (_title(pid) for pid in self.pids())
        found = (_NODE_ID.search(title) for title in titles)
        return next(match[1].decode() for match in found if match)

    def end(self) -> None:
        if self.processes:
            kill_all(self.processes[-1], self.pids())


def _title(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended
        return b""


class Cluster:
    """Head and two nodes, started.

    Args:
        own: an empty folder of a short path, since sockets lie in it.
        nodes: the head first.
    """

    def __init__(self, own: Path, nodes: list[Node]) -> None:
        self.own, self.nodes = own, nodes
        self.head, *self.others = nodes
        port = free_port(self.head.address)
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "RAY_ADDRESS": f"{self.head.address}:{port}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": uuid.uuid4().hex,
            "RAY_USAGE_STATS_ENABLED": "0",
            # A node that says nothing is gone after three looks of five seconds.
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_timeout_ms": "5000",
            "RAY_health_check_failure_threshold": "3",
            "RAY_worker_register_timeout_seconds": str(PATIENCE),
            "RAY_worker_niceness": "0",
            "RAY_memory_monitor_refresh_ms": "0",
            PAUSE: "0.3",
        }
        other = free_port("127.0.0.1")
        head = ("--head", f"--port={port}", f"--ray-client-server-port={other}")
        self._start(self.head, *head, "--include-dashboard=0")
        self._wait(self.head)
        for node in self.others:
            self.join(node, wait=False)
        for node in self.others:
            self._wait(node)

    def join(self, node: Node, *, wait: bool = True) -> None:
        """Start a node, also one that was cut off, on the same cable."""
        if node.processes:
            node.end()
        if node.wire:
            assert succeeds("ip", "link", "set", node.wire, "up")
        self._start(node, "--address", self.environment["RAY_ADDRESS"])
        if wait:
            self._wait(node)

    def preempt(self, node: Node, seconds: int) -> None:
        """Tell Ray that a node will be gone, as a cloud's notice does."""
        ray = str(Path(sys.executable).with_name("ray"))
        command = [ray, "drain-node", "--address", self.environment["RAY_ADDRESS"]]
        command += ["--node-id", node.ray_id(), "--reason-message", "spot"]
        command += ["--reason", "DRAIN_NODE_REASON_PREEMPTION"]
        command += ["--deadline-remaining-seconds", str(seconds)]
        subprocess.run(command, env=self.environment, check=True, capture_output=True)

    def used(self) -> list[Node]:
        """Nodes but the head that have workers in training."""
        return [node for node in self.others if node.workers()]

    def _start(self, node: Node, *arguments: str) -> None:
        folder = self.own / f"{node.name}{len(node.processes)}"
        folder.mkdir()
        ray = str(Path(sys.executable).with_name("ray"))
        sizes = [f"--num-cpus={CPUS}", "--object-store-memory=80000000"]
        command = [ray, "start", "--block", *sizes, *arguments]
        command += ["--node-ip-address", node.address]
        if node.space:
            # Each machine has its own /dev/shm, and its own folder of the head's name.
            head = self.own / f"{self.head.name}0"
            mounts = f"mount -t tmpfs tmpfs /dev/shm && mount -B {folder} {head}"
            shell = ["sh", "-c", f'{mounts} && exec "$0" "$@"']
            command = ["ip", "netns", "exec", node.space, *shell, *command]
        else:
            command.append(f"--temp-dir={folder}")
        with (self.own / f"{node.name}.out").open("wb") as out:
            process = subprocess.Popen(
                command,
                env={**self.environment, "GLOO_SOCKET_IFNAME": node.interface},
                start_new_session=True,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        node.processes.append(process)

    def _wait(self, node: Node) -> None:
        deadline = time.monotonic() + PATIENCE
        printed = self.own / f"{node.name}.out"
        while "Ray runtime started" not in printed.read_text():
            if node.processes[-1].poll() is not None:
                last = printed.read_text().strip().rpartition("\n")[2]
                raise NoClusterError(f"Ray's {node.name} does not start: {last}")
            assert time.monotonic() < deadline, printed.read_text()
            time.sleep(0.1)

    def close(self) -> None:
        for node in reversed(self.nodes):
            node.end()


@contextmanager
def wired(count: int) -> Iterator[list[Node]]:
    """The head, and `count` nodes behind a bridge; all at this machine's address where
    namespaces are not allowed."""
    mark = f"rrl{os.getpid() % 100000}"
    alone = [Node(f"n{i}", "", "", "127.0.0.1", "lo") for i in range(count + 1)]
    if shutil.which("ip") is None or not succeeds("ip", "netns", "add", f"{mark}n1"):
        yield alone
        return
    network, bridge = free_network(), f"{mark}b"
    nodes = [Node("n0", "", "", f"{network}.1", bridge)]
    commands = [
        f"ip link add {bridge} type bridge",
        f"ip addr add {network}.1/24 dev {bridge}",
        f"ip link set {bridge} up",
    ]
    for i in range(1, count + 1):
        space, wire, end = f"{mark}n{i}", f"{mark}w{i}", f"{mark}e{i}"
        commands += [
            *([f"ip netns add {space}"] if i > 1 else []),
            f"ip link add {wire} type veth peer name {end} netns {space}",
            f"ip link set {wire} master {bridge} up",
            f"ip -n {space} addr add {network}.{i + 1}/24 dev {end}",
            f"ip -n {space} link set {end} up",
            f"ip -n {space} link set lo up",
        ]
        nodes.append(Node(f"n{i}", space, wire, f"{network}.{i + 1}", end))
    try:
        made = all(succeeds(*command.split()) for command in commands)
        yield nodes if made else alone
    finally:
        for node in nodes[1:]:
            succeeds("ip", "netns", "del", node.space)
        succeeds("ip", "link", "del", bridge)


@contextmanager
def three_nodes() -> Iterator[Cluster]:
    """A cluster of three nodes.

    Raises:
        NoClusterError: Ray does not start them here.
    """
    with ExitStack() as stack:
        # Processes may still write there when they are told to end.
        made = tempfile.TemporaryDirectory(prefix="rrl", ignore_cleanup_errors=True)
        own = Path(stack.enter_context(made))
        nodes = stack.enter_context(wired(2))
        for node in nodes:
            stack.callback(node.end)
        yield Cluster(own, nodes)
