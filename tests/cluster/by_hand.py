"""Three nodes started by the commands of cluster/README.md's "by hand": the head, and
two in network namespaces with folders of their own."""

import json
import os
import re
import secrets
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

from tests.cluster.files import ROOT
from tests.evaluate.nodes import NoClusterError, free_port
from tests.training.nodes import PATIENCE, Node, Started, placed


class ByHand(Started):
    """A cluster with token authentication, as a person starts it.

    Args:
        own, nodes: see `Started`.

    Attributes:
        dashboard: its address, on the head's loopback.
        environment: of who submits jobs there, with the token.
    """

    def __init__(self, own: Path, nodes: list[Node]) -> None:
        super().__init__(own, nodes)
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
        options = ("--num-cpus=0", client, server, agent)
        self.begin(lambda: self._start(self.head, "head", *options))
        for node in self.others:
            self.join(node, wait=False)
        self.wait(*self.others)

    def join(self, node: Node, hide: Sequence[str] = (), *, wait: bool = True) -> None:
        """Start a worker's node, or start it anew.

        Args:
            node: which.
            hide: commands that let it find other things in some places.
            wait: until it has joined.
        """
        node.end()
        self._start(node, "worker HEAD", "--num-cpus=1", hide=hide)
        if wait:
            self.wait(node)

    def _start(
        self, node: Node, role: str, *options: str, hide: Sequence[str] = ()
    ) -> None:
        command = self.said(f"cluster/node.sh {role}", HEAD=self.head.address)
        variables = {"NODE_PORT": str(self.port), "NODE_INTERFACE": node.interface}
        self.launch(node, [*command, *options], variables, hide)

    def said(self, start: str, **other: str) -> list[str]:
        """The one command of the page that starts so, with this cluster's places.

        Args:
            start: its first words.
            other: by a word of it, or the name of a `name=value`, what stands there
                instead; nothing for an empty one.
        """
        (command,) = (each for each in commands() if f"{each} ".startswith(f"{start} "))
        places = {"/shared": str(self.own), "http://127.0.0.1:8265": self.dashboard}
        for place, own in places.items():
            command = command.replace(place, own)
        words = [
            other.get(word.partition("=")[0], word) for word in shlex.split(command)
        ]
        return [word for word in words if word]

    def run(
        self, *command: str, cwd: Path = ROOT, **variables: str | None
    ) -> "subprocess.CompletedProcess[str]":
        """A command of someone at the head.

        Args:
            command: found on the path of `.venv`.
            cwd: the folder that it is given in.
            variables: of the environment, other than `environment`; None: not set.
        """
        found = self.environment | variables
        return subprocess.run(
            command,
            cwd=cwd,
            env={name: value for name, value in found.items() if value is not None},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    def job(self, job: str) -> Any:
        """What the dashboard tells of one."""
        headers = {"Authorization": f"Bearer {self.token.read_text()}"}
        asked = Request(f"{self.dashboard}/api/jobs/{job}", headers=headers)
        with urlopen(asked) as answer:
            return json.load(answer)


def commands() -> list[str]:
    """Those of cluster/README.md's blocks, one line each, without comments."""
    page = (ROOT / "cluster/README.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    joined = "".join(blocks).replace("\\\n", " ")
    lines = (re.sub(r"\s#.*", "", line) for line in joined.splitlines())
    return [" ".join(line.split()) for line in lines if line.strip()]


def until(found: Callable[[], object], about: Callable[[], object]) -> None:
    """Wait for something; what it is about is told where that is in vain."""
    deadline = time.monotonic() + PATIENCE
    while not found():
        assert time.monotonic() < deadline, about()
        time.sleep(0.2)


@contextmanager
def started() -> Iterator[ByHand]:
    """The cluster.

    Raises:
        NoClusterError: there is no right to network namespaces, or Ray does not start.
    """
    with placed(2) as (own, nodes):
        if not nodes[1].space:
            raise NoClusterError("no right to network namespaces")
        yield ByHand(own, nodes)
