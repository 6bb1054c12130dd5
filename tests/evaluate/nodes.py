"""A Ray cluster of two nodes on this machine, the second in a network namespace where
that is allowed. The second can be killed and started again."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
NODE = "RRL_CHAOS_NODE"  # in the environment of its workers: which one they are on
PATIENCE = 600  # seconds, for whatever a test waits for
CPUS = 2  # of each node
PORTS = range(20_000, 32_000)
_TRIES = 3  # a port that was free may be taken by another process meanwhile
_ALONE = ("", "127.0.0.1", "127.0.0.1")
Say = Callable[[str], None]
Process = subprocess.Popen[bytes]


class NoClusterError(Exception):
    """Ray does not start two nodes here."""


def below(pid: int) -> list[int]:
    """A process and all that came of it, itself first."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended meanwhile
            parent = stat.read_text().rpartition(")")[2].split()[1]
            parents[int(stat.parent.name)] = int(parent)
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True).returncode == 0


def free_network() -> str:
    """The first three numbers of addresses that nobody here uses."""
    asked = subprocess.run(["ip", "-o", "-4", "addr"], capture_output=True, text=True)
    numbers = (f"10.213.{(os.getpid() + i) % 256}" for i in range(256))
    return next(n for n in numbers if f" {n}." not in asked.stdout)


@contextmanager
def namespace() -> Iterator[tuple[str, str, str]]:
    """A network namespace and the two addresses of a wire to it; an empty name, and
    this machine's address, where there is no right to one."""
    name, a, b = (f"rrl{os.getpid()}{end}" for end in ("", "a", "b"))
    if shutil.which("ip") is None or not succeeds("ip", "netns", "add", name):
        yield _ALONE
        return
    network = free_network()
    here, there = f"{network}.1", f"{network}.2"
    commands = (
        f"ip link add {a} type veth peer name {b} netns {name}",
        f"ip addr add {here}/30 dev {a}",
        f"ip link set {a} up",
        f"ip -n {name} addr add {there}/30 dev {b}",
        f"ip -n {name} link set {b} up",
        f"ip -n {name} link set lo up",
    )
    try:
        made = all(succeeds(*command.split()) for command in commands)
        yield (name, here, there) if made else _ALONE
    finally:
        succeeds("ip", "netns", "del", name)


def free_port(address: str) -> int:
    """None of those that the system or Ray give to whoever asks for any."""
    for port in random.SystemRandom().sample(PORTS, 100):
        with socket.socket() as probe, suppress(OSError):
            probe.bind((address, port))
            return port
    raise NoClusterError(f"no port of {address} is free")


class Nodes:
    """Ray's head, and a second node.

    Args:
        own: an empty folder of a short path, since sockets lie in it.
        space, here, there: see `namespace`.

    Attributes:
        started: second nodes so far.
    """

    def __init__(self, own: Path, space: str, here: str, there: str) -> None:
        self.own, self.space, self.there, self.started = own, space, there, 0
        port, other = free_port(here), free_port("127.0.0.1")
        self.address = f"{here}:{port}"
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "RAY_ADDRESS": self.address,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": uuid.uuid4().hex,
            "RAY_USAGE_STATS_ENABLED": "0",
            # A node that is killed refuses connections, and is gone after five looks;
            # one that is slow to answer, on a machine that is busy, is not.
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_timeout_ms": "120000",
            "RAY_worker_register_timeout_seconds": str(PATIENCE),
            # Ray would let whoever else uses the machine go before its workers.
            "RAY_worker_niceness": "0",
            # No worker is ended for the memory that others take.
            "RAY_memory_monitor_refresh_ms": "0",
        }
        # The server for Ray's clients listens on 127.0.0.1 alone, and where it finds
        # its port taken, the node ends a while after it has started.
        head = ("--head", f"--port={port}", f"--ray-client-server-port={other}")
        folder = f"--temp-dir={own / 'head'}"
        address = f"--node-ip-address={here}"
        self.head = self._start("head", *head, folder, address, "--include-dashboard=0")

    @property
    def name(self) -> str:
        """Of the second node; each time another."""
        return f"second-{self.started}"

    def start_second(self, hidden: Mapping[Path, Path] | None = None) -> None:
        """Start it; `hidden` says which folders others take the place of, in its eyes.

        Raises:
            NoClusterError: there is no right to hide any.
        """
        if hidden and not self.space:
            raise NoClusterError("no right to give a node other folders")
        self.started += 1
        folder = self.own / str(self.started)
        folder.mkdir()
        mine = ["--node-ip-address", self.there, "--address", self.address]
        if not self.space:
            self.second = self._start(self.name, *mine, f"--temp-dir={folder}")
            return
        mounts = f"mount -t tmpfs tmpfs /dev/shm && mount -B {folder} {self.own}/head"
        for place, other in (hidden or {}).items():
            mounts += f" && mount -B {other} {place}"
        shell = ["sh", "-c", f'{mounts} && exec "$0" "$@"']
        within = ["ip", "netns", "exec", self.space, *shell]
        self.second = self._start(self.name, *mine, within=within)

    def _start(
        self, name: str, *arguments: str, within: Sequence[str] = ()
    ) -> "subprocess.Popen[bytes]":
        ray = str(Path(sys.executable).with_name("ray"))
        sizes = [f"--num-cpus={CPUS}", "--object-store-memory=80000000"]
        with (self.own / f"{name}.out").open("wb") as out:
            return subprocess.Popen(
                [*within, ray, "start", "--block", *sizes, *arguments],
                env={**self.environment, NODE: name},
                start_new_session=True,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def _printed(self, name: str) -> str:
        return (self.own / f"{name}.out").read_text()

    def is_up(self, process: Process, name: str) -> bool:
        """Whether a node has started.

        Raises:
            NoClusterError: it has ended in place of that.
        """
        if "Ray runtime started" in self._printed(name):
            return True
        if process.poll() is not None:
            last = self._printed(name).strip().rpartition("\n")[2]
            raise NoClusterError(f"Ray's {name} node does not start: {last}")
        return False

    def wait(self, process: Process, name: str) -> None:
        """Raises `NoClusterError`."""
        deadline = time.monotonic() + PATIENCE
        while not self.is_up(process, name):
            assert time.monotonic() < deadline, f"no {name} node: {self._printed(name)}"
            time.sleep(0.1)

    def wait_for_second(self) -> None:
        """Raises `NoClusterError`."""
        self.wait(self.second, self.name)

    def mend(self) -> None:
        """Start a second node anew that has ended while it started; without a head
        there is nothing to wait for."""
        assert self.head.poll() is None, f"the head is gone: {self._printed('head')}"
        if self.started:
            try:
                self.is_up(self.second, self.name)
            except NoClusterError:
                self.start_second()

    def processes(self) -> set[int]:
        roots = [self.head, *([self.second] if self.started else [])]
        return {pid for root in roots for pid in below(root.pid)}

    def kill_second(self) -> None:
        """With all its processes."""
        inside = ["ip", "netns", "pids", self.space]
        found = subprocess.run(inside, capture_output=True) if self.space else None
        more = [] if found is None else list(map(int, found.stdout.split()))
        kill_all(self.second, more)

    def close(self) -> None:
        if self.started:
            self.kill_second()
        kill_all(self.head)


def kill_all(process: Process, more: Sequence[int] = ()) -> None:
    # Of one that has ended, the number may be another's by now.
    alive = below(process.pid) if process.poll() is None else []
    for pid in [*alive, *more]:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


@contextmanager
def started_head(say: Say) -> Iterator[Nodes]:
    """The first node, with a place for a second one.

    Raises:
        NoClusterError: it does not start.
    """
    with ExitStack() as stack:
        # Processes may still write there when they are told to end.
        made = tempfile.TemporaryDirectory(prefix="rrl", ignore_cleanup_errors=True)
        own = Path(stack.enter_context(made))
        space, here, there = stack.enter_context(namespace())
        for left in reversed(range(_TRIES)):
            nodes = Nodes(own, space, here, there)
            try:
                nodes.wait(nodes.head, "head")
                break
            except NoClusterError:
                nodes.close()
                if not left:
                    raise
        stack.callback(nodes.close)
        where = f"network namespace {space}" if space else "network of the first"
        say(f"a second node will be at {there} in the {where}; logs in {own}")
        yield nodes
