"""A real S3 server on loopback for tests: moto's, in a process of its own."""

import importlib.util
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "dummy",
    "AWS_SECRET_ACCESS_KEY": "dummy-secret",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def free_port() -> int:
    """A TCP port of loopback that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def call(url: str, method: str, data: bytes | None = None) -> None:
    """One HTTP request, as plain text; OSError if it fails."""
    request = urllib.request.Request(url, data, {"Content-Type": "text/plain"})
    request.method = method
    with urllib.request.urlopen(request, timeout=10):
        pass


@contextmanager
def s3_server() -> Iterator[str]:
    """An address with an existing bucket; its credentials are in the environment."""
    if importlib.util.find_spec("moto") is None:
        pytest.skip("no moto[server], which docker/install.sh dev installs")
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    quiet = subprocess.DEVNULL
    with pytest.MonkeyPatch.context() as patch:
        for key, value in CREDENTIALS.items():
            patch.setenv(key, value)
        with subprocess.Popen(command, stdout=quiet, stderr=quiet) as process:
            try:
                _make_bucket(f"http://127.0.0.1:{port}/bucket", process)
                options = f"endpoint_override=127.0.0.1:{port}&scheme=http"
                yield f"s3://bucket/runs?{options}&region=us-east-1"
            finally:
                process.kill()


def _make_bucket(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError):
            return call(url, "PUT")
        time.sleep(0.1)
    raise RuntimeError("moto's server does not answer")
