"""The shell scripts: shellcheck, and what they do with a `ray` that writes down what it
is told."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.cluster.files import ROOT, tool
from tests.cluster.programs import PATIENCE

NODE = 28 * "0a"  # as Ray names one
RAYLET = [f"--node_id={NODE}", "--gcs-address=10.0.0.1:6379"]
SCRIPTS = sorted(
    str(path.relative_to(ROOT))
    for folder in ("cluster", "docker", "tests/cluster")
    for path in (ROOT / folder).glob("*.sh")
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_shellcheck_has_nothing_against_it(script: str) -> None:
    done = subprocess.run(
        [tool("shellcheck"), script], cwd=ROOT, capture_output=True, text=True
    )
    assert done.stdout + done.stderr == ""


def test_shellcheck_finds_what_is_wrong(tmp_path: Path) -> None:
    file = tmp_path / "wrong.sh"
    file.write_text("#!/bin/sh\ncd $1\nrm -rf $2/*\n")
    done = subprocess.run([tool("shellcheck"), file], capture_output=True, text=True)
    assert "SC2086" in done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_it_can_be_run(script: str) -> None:
    assert os.access(ROOT / script, os.X_OK)


def run(
    tree: Path, *command: str, **variables: str
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(tree / command[0]), *command[1:]],
        env={"PATH": os.environ["PATH"], "HOME": str(tree), **variables},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def said(tree: Path) -> list[str]:
    return (tree / "said").read_text().splitlines()


def test_a_head_listens_to_its_own_machine_and_asks_for_a_token(tree: Path) -> None:
    assert run(tree, "cluster/node.sh", "head", "--num-cpus=0").returncode == 0
    command, *variables = said(tree)
    assert command == (
        "start --head --port=6379 --dashboard-host=127.0.0.1 --num-cpus=0"
    )
    assert {"RAY_AUTH_MODE=token", "RAY_USAGE_STATS_ENABLED=0"} <= set(variables)
    assert f"PWD={tree}" in variables, "a job runs where ray start was given"


def test_a_head_listens_elsewhere_when_told_so(tree: Path) -> None:
    told = {"DASHBOARD_HOST": "10.0.0.1", "NODE_PORT": "7000"}
    assert run(tree, "cluster/node.sh", "head", **told).returncode == 0
    assert said(tree)[0] == "start --head --port=7000 --dashboard-host=10.0.0.1"


def test_a_worker_joins_the_head_by_the_interface_that_it_is_told(tree: Path) -> None:
    told = {"NODE_INTERFACE": "ib0"}
    done = run(tree, "cluster/node.sh", "worker", "10.0.0.1", "--block", **told)
    assert done.returncode == 0
    command, *variables = said(tree)
    assert command == "start --address=10.0.0.1:6379 --block"
    assert {"GLOO_SOCKET_IFNAME=ib0", "NCCL_SOCKET_IFNAME=ib0"} <= set(variables)


@pytest.mark.parametrize("words", [[], ["worker"], ["heads"]])
def test_a_node_of_no_kind_is_refused_in_one_line(tree: Path, words: list[str]) -> None:
    done = run(tree, "cluster/node.sh", *words)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert not (tree / "said").exists()


Answers = Callable[[str, Mapping[str, str]], tuple[int, str]]


@contextmanager
def metadata(answers: Answers) -> Iterator[str]:
    """A cloud's metadata service: path and headers to status and text."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        status, text = answers(handler.path, handler.headers)
        handler.send_response(status)
        handler.end_headers()
        handler.wfile.write(text.encode())

    def be_silent(*told: object) -> None:
        """In place of a line for each request."""

    methods = {"do_GET": answer, "do_PUT": answer, "log_message": be_silent}
    handler = type("Handler", (BaseHTTPRequestHandler,), methods)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_the_notice_of_a_spot_machine_of_aws_reaches_ray(
    tree: Path, node: dict[str, str]
) -> None:
    looks = 0

    def answers(path: str, headers: Mapping[str, str]) -> tuple[int, str]:
        nonlocal looks
        if path == "/latest/api/token":
            return 200, "key"
        assert path == "/latest/meta-data/spot/instance-action"
        assert headers["X-aws-ec2-metadata-token"] == "key"
        looks += 1
        return (404, "") if looks < 3 else (200, '{"action": "terminate"}')

    with metadata(answers) as address:
        told = {"METADATA": address, "NOTICE_EVERY": "0.05"}
        done = run(tree, "cluster/notice.sh", "aws", **told, **node)
    assert (done.returncode, looks) == (0, 3)
    assert drained(tree) == 110


def test_the_notice_of_a_spot_machine_of_google_reaches_ray(
    tree: Path, node: dict[str, str]
) -> None:
    looks = 0

    def answers(path: str, headers: Mapping[str, str]) -> tuple[int, str]:
        nonlocal looks
        assert path == "/computeMetadata/v1/instance/preempted"
        assert headers["Metadata-Flavor"] == "Google"
        looks += 1
        return 200, "FALSE" if looks < 3 else "TRUE"

    with metadata(answers) as address:
        told = {"METADATA": address, "NOTICE_EVERY": "0.05"}
        done = run(tree, "cluster/notice.sh", "gcp", **told, **node)
    assert (done.returncode, looks) == (0, 3)
    assert drained(tree) == 25


def test_without_curl_no_notice_is_waited_for(tree: Path) -> None:
    """Only the few programs that the script begins with."""
    few = tree / "few"
    few.mkdir()
    for name in ("sh", "dirname"):
        (few / name).symlink_to(tool(name))
    done = run(tree, "cluster/notice.sh", "aws", PATH=str(few))
    assert done.returncode == 1
    assert "curl is not installed" in done.stderr
    assert not (tree / "said").exists()


@pytest.fixture
def node(tree: Path) -> dict[str, str]:
    """Where a raylet and others are told of, as `/proc` does it."""
    processes = {
        "7": ("sh", ["sh", "-c", "raylet --node_id=wrong"]),
        "42": ("raylet", ["raylet", "--x=1 --node_id=no", *RAYLET]),
        "43": ("python", ["python", "agent.py", "--node_id=another"]),
    }
    for pid, (name, words) in processes.items():
        (tree / "proc" / pid).mkdir(parents=True)
        (tree / "proc" / pid / "comm").write_text(f"{name}\n")
        command = "".join(f"{word}\0" for word in words)
        (tree / "proc" / pid / "cmdline").write_text(command)
    return {"PROC": str(tree / "proc")}


def drained(tree: Path) -> int:
    """Seconds that Ray was told are left."""
    command, *variables = said(tree)
    words = command.split()
    assert words[:5] == ["drain-node", "--address", "10.0.0.1:6379", "--node-id", NODE]
    assert words[5:7] == ["--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    assert "RAY_AUTH_MODE=token" in variables
    return int(words[-1])


def test_without_a_node_nobody_is_told(tree: Path) -> None:
    (tree / "proc").mkdir()
    done = run(tree, "cluster/notice.sh", "1", PROC=str(tree / "proc"))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "no node of Ray runs here" in done.stderr
    assert not (tree / "said").exists()


@pytest.mark.slow
def test_ray_knows_the_options_that_it_is_given() -> None:
    from ray.scripts.scripts import drain_node, start

    known = {o for p in (*start.params, *drain_node.params) for o in p.opts}
    given = {
        word.partition("=")[0].strip('"')
        for name in ("node.sh", "notice.sh")
        for line in (ROOT / "cluster" / name).read_text().splitlines()
        if not line.lstrip().startswith("#")
        for word in line.split()
        if word.startswith("--")
    }
    assert {"--head", "--address", "--dashboard-host", "--reason"} <= given
    assert given <= known
    (reason,) = [p for p in drain_node.params if "--reason" in p.opts]
    assert "DRAIN_NODE_REASON_PREEMPTION" in reason.type.choices


def test_a_pod_that_is_deleted_is_told_of_at_once(
    tree: Path, node: dict[str, str]
) -> None:
    begun = time.monotonic()
    assert run(tree, "cluster/notice.sh", "1", **node).returncode == 0
    assert drained(tree) == 1
    assert time.monotonic() - begun < PATIENCE / 2
