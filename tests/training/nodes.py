"""A Ray cluster of three nodes on this machine: the head, and two in network namespaces
of their own where that is allowed, which can be cut off and come back."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
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
_TRIES = 3  # to start a head
_WORKER = b"ray::RayTrainWorker"  # as Ray names the process


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
        return [pid for pid in self.pids() if title(pid).startswith(_WORKER)]

    def cut(self) -> None:
        """Off from the others, without a word; without namespaces, it ends."""
        if self.space:
            assert succeeds("ip", "link", "set", self.wire, "down")
        else:
            self.end()

    def end(self) -> None:
        if self.processes:
            kill_all(self.processes[-1], self.pids())


def title(pid: int) -> bytes:
    """A process's words, each with a zero byte behind it, or what it calls itself."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:  # it has ended
        return b""


class Started:
    """Nodes of one cluster, and how each is started.

    Args:
        own: an empty folder of a short path, since sockets lie in it.
        nodes: the head first.

    Attributes:
        environment: of all of them.
    """

    environment: Mapping[str, str]

    def __init__(self, own: Path, nodes: list[Node]) -> None:
        self.own, self.nodes = own, nodes
        self.head, *self.others = nodes

    def launch(
        self,
        node: Node,
        command: Sequence[str],
        variables: Mapping[str, str],
        hide: Sequence[str] = (),
    ) -> None:
        """Start one.

        Args:
            node: which.
            command: that starts Ray's node, which is given more options.
            variables: of its environment alone.
            hide: commands that let it find other things in some places.
        """
        folder = self.own / f"{node.name}{len(node.processes)}"
        folder.mkdir()
        sizes = ["--block", "--object-store-memory=80000000"]
        command = [*command, *sizes, "--node-ip-address", node.address]
        if node.space:
            # Each machine has its own /dev/shm, and its own folder of the head's name.
            mounts = ["mount -t tmpfs tmpfs /dev/shm"]
            head = f"{self.head.name}{len(self.head.processes) - 1}"
            mounts += [f"mount -B {folder} {self.own / head}", *hide]
            shell = ["sh", "-c", f'{" && ".join(mounts)} && exec "$0" "$@"']
            command = ["ip", "netns", "exec", node.space, *shell, *command]
        else:
            command.append(f"--temp-dir={folder}")
        with (self.own / f"{node.name}.out").open("wb") as out:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**self.environment, **variables},
                start_new_session=True,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        node.processes.append(process)

    def begin(self, start: Callable[[], None]) -> None:
        """Start the head: anew where Ray was not ready in the seconds that it gives
        itself, on a machine that is busy.

        Raises:
            NoClusterError: it does not start.
        """
        for left in reversed(range(_TRIES)):
            start()
            try:
                self.wait(self.head)
                return
            except NoClusterError:
                self.head.end()
                if not left:
                    raise

    def wait(self, *nodes: Node) -> None:
        """Until they have joined.

        Raises:
            NoClusterError: one has ended in place of that.
        """
        deadline = time.monotonic() + PATIENCE
        for node in nodes:
            printed = self.own / f"{node.name}.out"
            while "Ray runtime started" not in printed.read_text():
                if node.processes[-1].poll() is not None:
                    last = printed.read_text().strip().rpartition("\n")[2]
                    raise NoClusterError(f"Ray's {node.name} does not start: {last}")
                assert time.monotonic() < deadline, printed.read_text()
                time.sleep(0.1)


class Cluster(Started):
    """Head and two nodes, started; see `Started`."""

    def __init__(self, own: Path, nodes: list[Node]) -> None:
        super().__init__(own, nodes)
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
        self.begin(lambda: self._start(self.head, *head, "--include-dashboard=0"))
        for node in self.others:
            self.join(node, wait=False)
        self.wait(*self.others)

    def join(self, node: Node, *, wait: bool = True) -> None:
        """Start a node, also one that was cut off, on the same cable."""
        if node.processes:
            node.end()
        if node.wire:
            assert succeeds("ip", "link", "set", node.wire, "up")
        self._start(node, "--address", self.environment["RAY_ADDRESS"])
        if wait:
            self.wait(node)

    def preempt(self, node: Node, seconds: int) -> "subprocess.Popen[bytes]":
        """Tell Ray that a node will be gone, as a cloud's notice does; returns the
        script that does so there, which ends with the node or that time."""
        # All nodes see the processes of all of them.
        own = self.own / f"{node.name}-proc"
        own.mkdir(exist_ok=True)
        for pid in node.pids():
            (own / str(pid)).symlink_to(f"/proc/{pid}")
        command = ["cluster/notice.sh", str(seconds)]
        if node.space:
            command = ["ip", "netns", "exec", node.space, *command]
        environment = {**self.environment, "PROC": str(own)}
        return subprocess.Popen(command, cwd=ROOT, env=environment)

    def used(self) -> list[Node]:
        """Nodes but the head that have workers in training."""
        return [node for node in self.others if node.workers()]

    def _start(self, node: Node, *arguments: str) -> None:
        ray = str(Path(sys.executable).with_name("ray"))
        command = [ray, "start", f"--num-cpus={CPUS}", *arguments]
        self.launch(node, command, {"GLOO_SOCKET_IFNAME": node.interface})


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
def placed(count: int) -> Iterator[tuple[Path, list[Node]]]:
    """A folder of their own, and nodes as `wired`, which end with it."""
    with ExitStack() as stack:
        # Processes may still write there when they are told to end.
        made = tempfile.TemporaryDirectory(prefix="rrl", ignore_cleanup_errors=True)
        own = Path(stack.enter_context(made))
        nodes = stack.enter_context(wired(count))
        for node in nodes:
            stack.callback(node.end)
        yield own, nodes


@contextmanager
def three_nodes() -> Iterator[Cluster]:
    """A cluster of three nodes.

    Raises:
        NoClusterError: Ray does not start them here.
    """
    with placed(2) as (own, nodes):
        yield Cluster(own, nodes)
