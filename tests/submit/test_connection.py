"""How a dashboard is reached: certificates of private authorities, and proxies."""

import json
import os
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from rrl_dist.core.errors import UserError
from rrl_dist.submit.connection import check_reached, trusted
from tests.evaluate.nodes import free_port

HTTPS = "https://rrl.example"
NAMES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, *PROXIES, *map(str.upper, PROXIES)):
        monkeypatch.delenv(name, raising=False)


def test_authorities_are_those_of_the_setting_then_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert trusted(HTTPS, None) is True
    for name in reversed(NAMES):
        (tmp_path / name).touch()
        monkeypatch.setenv(name, str(tmp_path / name))
        assert trusted(HTTPS, None) == str(tmp_path / name)
    assert trusted(HTTPS, str(tmp_path)) == str(tmp_path)
    assert trusted(HTTPS, False) is False
    assert trusted(HTTPS, True) is True
    assert trusted("http://rrl.example", None) is True


def test_authorities_that_are_not_there_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"^verify=/nowhere is not there"):
        trusted(HTTPS, "/nowhere")
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere.pem")
    with pytest.raises(UserError, match=r"^SSL_CERT_FILE=/nowhere.pem is not there"):
        trusted(HTTPS, None)


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_proxy_is_not_passed_by(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    closed = f"https://127.0.0.1:{free_port('127.0.0.1')}"
    with pytest.raises(UserError, match="no Ray dashboard answers at"):
        check_reached(closed)
    monkeypatch.setenv(name, "http://proxy.example:3128")
    assert check_reached(closed)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(UserError, match="no Ray dashboard answers at"):
        check_reached(closed)


class Dashboard(BaseHTTPRequestHandler):
    """What Ray's answers before it lists no jobs."""

    def do_GET(self) -> None:
        version = {"version": "4", "ray_version": "2.60.0", "ray_commit": "x"}
        answer = version if self.path == "/api/version" else []
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *told: object) -> None:
        """In place of a line for each request."""


@pytest.fixture
def private(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server's address, and the certificate of its own authority."""
    certificate, key = tmp_path / "own.pem", tmp_path / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
    made += ["-keyout", str(key), "-out", str(certificate)]
    made += ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(made, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Dashboard)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}", certificate
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_a_private_authority_is_trusted_where_it_is_told(
    private: tuple[str, Path],
) -> None:
    address, certificate = private

    def jobs(*more: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-m", "rrl_dist.cli.main", "submit", *more]
        command += [f"address={address}", "jobs"]
        environment = {**os.environ, **variables}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=300
        )

    refused = jobs()
    (line,) = refused.stderr.strip().splitlines()
    assert refused.returncode == 2
    assert "not trusted here; give the file of that by verify=FILE" in line
    assert jobs(f"verify={certificate}").returncode == 0
    assert jobs(SSL_CERT_FILE=str(certificate)).returncode == 0
