"""The command: its table, its words and how it ends."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from rrl_dist.cli import doctor
from rrl_dist.cli.main import main
from rrl_dist.doctor.finding import Asked, Row, fail, ok, warn
from rrl_dist.doctor.nodes import HERE, _named
from tests.cli.harness import rrl
from tests.mistakes.commands import refused

LONG = "mount it, " * 40


def run(
    rows: Sequence[Row], monkeypatch: pytest.MonkeyPatch, *words: str
) -> tuple[int, Asked]:
    """The status of `rrl doctor WORDS` where this is found, and what was asked."""
    told: list[Asked] = []

    def ask(asked: Asked) -> list[Row]:
        told.append(asked)
        return list(rows)

    monkeypatch.setattr(doctor, "ask_here", ask)
    monkeypatch.setattr("sys.argv", ["rrl", "doctor", *words])
    status = 0
    try:
        main()
    except SystemExit as ended:
        status = int(ended.code or 0)
    return status, told[0]


def test_what_fails_ends_it_with_a_status(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = [
        Row("disk", (HERE,), fail("[full]", LONG)),
        Row("data", (HERE,), ok("fine")),
    ]
    status, asked = run(rows, monkeypatch, f"storage={tmp_path}", "disk_gb=7")
    assert status == 1
    assert (asked.storage, asked.disk_gb) == (str(tmp_path), 7)
    printed = capsys.readouterr().out
    (line,) = [line for line in printed.splitlines() if "[full]" in line]
    assert line.split() == ["fail", "disk", *HERE.split(), "[full]", *LONG.split()]
    assert printed.splitlines()[-1] == "this machine: 1 to mend, 0 to consider"


def test_what_could_be_better_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "found.json"
    rows = [Row("disk", (HERE,), warn("slow", "buy one"))]
    assert run(rows, monkeypatch, f"json={file}")[0] == 0
    assert json.loads(file.read_text()) == [
        {
            "check": "disk",
            "nodes": [HERE],
            "state": "warn",
            "found": "slow",
            "mend": "buy one",
        }
    ]


def test_all_nodes_are_named_once() -> None:
    nodes = ["a", "b", "c"]
    row = Row("disk", ("c", "a", "b"), ok("fine"))
    assert doctor._where(row, nodes) == "all 3 nodes"
    assert doctor._where(Row("disk", ("c", "a"), ok("fine")), nodes) == "c, a"


def test_nodes_of_one_name_are_told_apart() -> None:
    def node(name: str, identity: str) -> dict[str, str]:
        address = {"NodeManagerAddress": "10.0.0.1", "NodeID": identity}
        return {"NodeManagerHostname": name, **address}

    named = _named([node("a", "11111111"), node("a", "22222222"), node("b", "3")])
    assert list(named) == ["a (10.0.0.1) 111111", "a (10.0.0.1) 222222", "b (10.0.0.1)"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cluster", "cluster.kind=nowhere"], "cluster.kind=nowhere; choose"),
        (["cluster.kind=nowhere", "--cluster"], "cluster.kind=nowhere; choose"),
        (["--clustr"], "--clustr is no option"),
        (["disk_gb=-1"], "disk_gb=-1; set 0 or more"),
        (["storage=s3://bucket/runs"], "only folders"),
    ],
    ids=" ".join,
)
def test_a_mistake_takes_one_line(
    words: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert said in refused(["doctor", *words], monkeypatch, capsys)


@pytest.mark.slow
def test_a_node_of_a_ray_session_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a" * 64)
    found = tmp_path / "found.json"
    words = ["cluster=local", "disk_gb=0", "shared_memory_gb=0", "patience=600"]
    printed = rrl(tmp_path, "doctor", *words, f"json={found}")
    assert "Traceback" not in printed
    rows = json.loads(found.read_text())
    assert {"clocks", "data", "disk", "storage", "versions"} <= {
        r["check"] for r in rows
    }
    assert {row["state"] for row in rows} <= {"ok", "warn"}
    assert re.search(r": 0 to mend, \d+ to consider", printed.splitlines()[-1])
    assert not (tmp_path / "runs").exists()


def test_a_cluster_of_another_ray(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @contextmanager
    def refusing(cluster: object) -> Iterator[None]:
        raise RuntimeError("Version mismatch: the cluster has:\n    Ray: 2.9.0\n")
        yield

    monkeypatch.setattr(doctor, "session", refusing)
    line = refused(["doctor", "--cluster"], monkeypatch, capsys)
    assert "(Version mismatch: the cluster has: Ray: 2.9.0); use" in line
