import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rrl_dist.core.errors import UserError
from rrl_dist.tune.study import read_study
from tests.tune.sweeps import (
    SAMPLERS,
    drive,
    driver,
    killed,
    outcome_of,
    same,
    study_of,
)

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PROGRAMS, reason="PostgreSQL is not installed"),
]
PASSWORD = "s3cret{@/"  # what an address has to write otherwise
WRITTEN = "s3cret%7B%40%2F"


class Server:
    """PostgreSQL on a loopback port, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.programs = folder, PROGRAMS[-1].parent
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        # It does not run as root; Debian's package brings a user for it.
        self.user: dict[str, Any] = {}
        if os.getuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
            self.user = {"user": "postgres", "group": "postgres", "extra_groups": []}
        self.process: subprocess.Popen[bytes] | None = None

    def make(self) -> None:
        word = self.folder / "password"
        word.write_text(PASSWORD)
        options = ["-U", "rrl", "-A", "scram-sha-256", f"--pwfile={word}", "--no-sync"]
        self._run("initdb", "-D", str(self.folder / "db"), *options)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.programs / program), *arguments]
        out = subprocess.DEVNULL
        subprocess.run(command, check=True, stdout=out, cwd=self.folder, **self.user)

    def start(self) -> None:
        place = ["-D", "db", "-h", "127.0.0.1", "-p", str(self.port)]
        command = [
            str(self.programs / "postgres"),
            *place,
            "-k",
            str(self.folder),
            "-F",
        ]
        self.process = subprocess.Popen(
            command, cwd=self.folder, stderr=subprocess.DEVNULL, **self.user
        )
        wait = ["-h", "127.0.0.1", "-p", str(self.port), "-t", "1", "-q"]
        for _ in range(300):
            ready = subprocess.run([str(self.programs / "pg_isready"), *wait])
            if ready.returncode == 0:
                return
        raise TimeoutError("the server does not answer")

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)  # closes its connections
            self.process.wait(30)
            self.process = None

    def address(self, *, password: str = WRITTEN, database: str = "postgres") -> str:
        return f"postgresql://rrl:{password}@127.0.0.1:{self.port}/{database}"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    # pytest's own folders are closed to other users.
    with tempfile.TemporaryDirectory(prefix="rrl-postgres-") as name:
        server = Server(Path(name))
        server.make()
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture
def name() -> str:
    return secrets.token_hex(8)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sweep_is_the_same_as_in_a_file(
    server: Server, name: str, tmp_path: Path, sampler: str
) -> None:
    found = []
    for address in (tmp_path / "study.db", server.address()):
        with study_of(address, name=name, sampler=sampler) as study:
            list(drive(study))
            found.append(same(study.trials()))
    assert found[0] == found[1]
    _, records = read_study(server.address(), name)
    assert same(records) == found[0]


def test_a_process_that_is_killed_is_followed_by_the_same_sweep(
    server: Server, name: str, tmp_path: Path
) -> None:
    with study_of(tmp_path / "whole.db") as study:
        list(drive(study))
        whole = same(study.trials())
    for after in (2, 4):
        killed(server.address(), after=after, name=name)
    with study_of(server.address(), name=name) as study:
        list(drive(study))
        assert same(study.trials()) == whole


def test_two_processes_in_one_database(server: Server, name: str) -> None:
    names = (f"{name}1", f"{name}2")
    address = server.address()
    with driver(address, names[0]) as one, driver(address, names[1]) as two:
        for process in (one, two):
            assert process.communicate()[0].split() == [str(n) for n in range(8)]


def test_a_server_that_was_started_again_is_found_again(
    server: Server, name: str
) -> None:
    with study_of(server.address(), name=name) as study:
        asked = study.ask()
        assert asked is not None
        server.stop()
        with pytest.raises(
            UserError, match=r"refused.*; check sweep\.study="
        ) as caught:
            study.tell(asked.number, outcome_of(asked))
        assert "\n" not in str(caught.value)
        server.start()
        assert study.tell(asked.number, outcome_of(asked))
        assert [r.state for r in study.trials()] == ["complete"]


def test_another_configuration_under_the_name_is_refused(
    server: Server, name: str
) -> None:
    with study_of(server.address(), name=name, frozen={"text": "x" * 100_000, "a": 1}):
        pass
    with (
        pytest.raises(UserError, match=f"a sweep {name} with another text, a; choose"),
        study_of(server.address(), name=name, frozen={"text": "y", "a": 2}),
    ):
        pass


def test_what_is_wrong_is_told_without_the_password(server: Server) -> None:
    wrong = {
        server.address(password="wr0ng"): "authentication failed.*check user and pass",
        server.address(database="none"): 'database "none" does not exist.; create that',
    }
    for address, found in wrong.items():
        with pytest.raises(UserError, match=found) as caught, study_of(address):
            pass
        for word in ("wr0ng", PASSWORD, WRITTEN, "\n"):
            assert word not in str(caught.value)


def test_a_second_driver_of_a_sweep_is_refused(server: Server, name: str) -> None:
    with study_of(server.address(), name=name) as study:
        assert study.ask() is not None
        with (
            pytest.raises(UserError, match=f"another driver runs the sweep {name} in "),
            study_of(server.address(), name=name),
        ):
            pass
        with study_of(server.address(), name=f"{name}-other"):
            pass
    with study_of(server.address(), name=name) as study:
        assert len(study.left()) == 1
