"""Three nodes started by the commands of cluster/README.md's "by hand": the head, and
two in network namespaces with folders of their own."""

import os
import secrets
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.cluster.files import ROOT
from tests.evaluate.nodes import NoClusterError, free_port
from tests.training.nodes import PATIENCE, Node, wired

_HEAD = "n0"


class ByHand:
    """A cluster with token authentication, as a person starts it.

    Args:
        own: an empty folder of a short path, since sockets lie in it.
        nodes: the head first.

    Attributes:
        dashboard: its address, on the head's loopback.
        environment: of who submits jobs there, with the token.
    """

    def __init__(self, own: Path, nodes: list[Node]) -> None:
        self.own, self.nodes = own, nodes
        self.head, *self.others = nodes
        self.port = free_port(self.head.address)
        dashboard = free_port("127.0.0.1")
        self.dashboard = f"http://127.0.0.1:{dashboard}"
        self.token = own / "token"
        self.token.write_text(secrets.token_hex(32))
        self.token.chmod(0o600)
        self.environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.token),
            "RAY_API_SERVER_ADDRESS": self.dashboard,
            "RAY_worker_niceness": "0",
            "RAY_memory_monitor_refresh_ms": "0",
            "PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}",
        }
        client = f"--ray-client-server-port={free_port('127.0.0.1')}"
        server = f"--dashboard-port={dashboard}"
        # That of other clusters' heads on this machine; without, no job begins.
        agent = f"--dashboard-agent-listen-port={free_port('127.0.0.1')}"
        self._start(self.head, "head", "--num-cpus=0", client, server, agent)
        self._wait(self.head)
        for node in self.others:
            self.join(node, wait=False)
        for node in self.others:
            self._wait(node)

    def join(self, node: Node, hide: Sequence[str] = (), *, wait: bool = True) -> None:
        """Start a worker's node, or start it anew.

        Args:
            node: which.
            hide: commands that let it find other things in some places.
            wait: until it has joined.
        """
        node.end()
        self._start(node, "worker", self.head.address, "--num-cpus=1", hide=hide)
        if wait:
            self._wait(node)

    def _start(self, node: Node, *arguments: str, hide: Sequence[str] = ()) -> None:
        folder = self.own / f"{node.name}{'x' * len(node.processes)}"
        folder.mkdir()
        sizes = ["--block", "--object-store-memory=80000000"]
        sizes += ["--node-ip-address", node.address]
        command = ["cluster/node.sh", *arguments, *sizes]
        if node.name == _HEAD:
            command.append(f"--temp-dir={folder}")
        else:
            mounts = ["mount -t tmpfs tmpfs /dev/shm"]
            mounts += [f"mount -B {folder} {self.own / _HEAD}", *hide]
            shell = ["sh", "-c", f'{" && ".join(mounts)} && exec "$0" "$@"']
            command = ["ip", "netns", "exec", node.space, *shell, *command]
        variables = {"NODE_PORT": str(self.port), "NODE_INTERFACE": node.interface}
        with (self.own / f"{node.name}.out").open("wb") as out:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self.environment | variables,
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

    def run(
        self, *command: str, **variables: str | None
    ) -> "subprocess.CompletedProcess[str]":
        """A command of someone at the head, in the repository's folder.

        Args:
            command: found on the path of `.venv`.
            variables: of the environment, other than `environment`; None: not set.
        """
        found = self.environment | variables
        return subprocess.run(
            command,
            cwd=ROOT,
            env={name: value for name, value in found.items() if value is not None},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )


@contextmanager
def started() -> Iterator[ByHand]:
    """The cluster.

    Raises:
        NoClusterError: there is no right to network namespaces, or Ray does not start.
    """
    with ExitStack() as stack:
        # Processes may still write there when they are told to end.
        made = tempfile.TemporaryDirectory(prefix="rrl", ignore_cleanup_errors=True)
        own = Path(stack.enter_context(made))
        nodes = stack.enter_context(wired(2))
        if not nodes[1].space:
            raise NoClusterError("no right to network namespaces")
        for node in nodes:
            stack.callback(node.end)
        yield ByHand(own, nodes)
