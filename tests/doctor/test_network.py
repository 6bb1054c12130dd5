"""Interfaces that gloo and NCCL are told, and connections between nodes."""

import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from rrl_dist.doctor import check_network, interfaces
from rrl_dist.doctor.check_network import Ear
from rrl_dist.doctor.finding import FAIL, OK, WARN
from tests.doctor.asking import asked, only

THERE = {"lo": "127.0.0.1", "eth0": "10.0.0.5", "eth1": "192.168.0.5"}


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine with two networks, whose name is that of the first."""
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        monkeypatch.delenv(name, raising=False)
    for module in (check_network, interfaces):
        monkeypatch.setattr(module, "interfaces", lambda: THERE)
    monkeypatch.setattr(socket, "gethostbyname", lambda name: "10.0.0.5")
    return monkeypatch


@pytest.mark.parametrize(
    ("told", "state", "said"),
    [
        ("eth0", OK, "find an interface"),
        ("eth7", FAIL, "no such interface"),
        ("eth1", WARN, "has 192.168.0.5, and Ray knows this node by 10.0.0.5, of eth0"),
        ("", WARN, "there are eth0, eth1"),
    ],
)
def test_what_gloo_is_told(
    told: str, state: str, said: str, two: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    two.setenv("GLOO_SOCKET_IFNAME", told)
    found = only(check_network.look(asked(tmp_path, address="10.0.0.5", nodes=2)))
    assert found.state == state
    assert said in found.found
    if state != OK:
        assert found.mend.startswith("export GLOO_SOCKET_IFNAME=eth0 before ray start")


def test_a_name_that_leads_to_the_loopback(
    two: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    two.setattr(socket, "gethostbyname", lambda name: "127.0.1.1")
    found = only(check_network.look(asked(tmp_path, address="10.0.0.5", nodes=2)))
    assert found.state == FAIL
    assert "127.0.1.1, where no other node reaches it" in found.found
    assert only(check_network.look(asked(tmp_path))).state == OK


def test_nccl_matters_where_there_are_gpus(
    two: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    two.setenv("GLOO_SOCKET_IFNAME", "eth0")
    node = asked(tmp_path, address="10.0.0.5", nodes=2, gpus=1)
    assert only(check_network.look(node)).found.startswith("NCCL_SOCKET_IFNAME is not")
    two.setenv("NCCL_SOCKET_IFNAME", "eth0")
    assert only(check_network.look(node)).state == OK


@pytest.mark.parametrize(
    ("value", "chosen"),
    [
        ("eth", ["eth0", "eth1"]),
        ("=eth", []),
        ("=eth1", ["eth1"]),
        ("^lo,eth1", ["eth0"]),
        ("^=eth0", ["lo", "eth1"]),
        ("ib0,eth1", ["eth1"]),
    ],
)
def test_the_way_of_nccl_to_name_interfaces(
    value: str, chosen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", value)
    assert interfaces.chosen("NCCL_SOCKET_IFNAME", list(THERE)) == chosen


def test_the_interfaces_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    assert interfaces.interfaces()["lo"] == "127.0.0.1"
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    assert interfaces.gloo_address() == "127.0.0.1"


def test_an_ear_is_reached_while_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    one, other = Ear(), Ear()
    place = one.where()
    assert other.reach(*place) == ""
    one._socket.close()
    assert "refused" in other.reach(*place).lower()
    other._socket.close()


def test_who_cannot_be_reached_is_named() -> None:
    place = ("10.0.0.5", 99)
    found = check_network._reached("Connection refused", "b (10.0.0.5)", place)
    assert found.state == FAIL
    assert (
        found.found == "cannot reach node b (10.0.0.5) at 10.0.0.5 (connection refused)"
    )
    assert check_network._reached("", "b", place).state == OK


class Told:
    """What stands in for an actor: its answers, at once."""

    def __init__(self, place: tuple[str, int], reached: str) -> None:
        self.where = SimpleNamespace(remote=lambda: place)
        self.reach = SimpleNamespace(remote=lambda address, port: reached)


def test_a_node_that_offers_its_loopback_is_not_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = {
        "a": Told(("10.0.0.1", 1), ""),
        "b": Told(("127.0.1.1", 2), "No route to host"),
        "c": Told(("10.0.0.3", 3), ""),
    }
    monkeypatch.setattr(check_network, "actor_on", lambda node, kind: places[node])
    monkeypatch.setattr(check_network, "answers", lambda nodes, told, patience: told)
    monkeypatch.setattr("ray.kill", lambda actor: None)
    nodes = {
        name: {"NodeID": name, "NodeManagerAddress": f"10.0.0.{place}"}
        for place, name in enumerate(places, 1)
    }
    found = list(check_network.between(nodes, asked(tmp_path)))
    assert [(node, finding.state) for node, finding in found] == [
        ("b", FAIL),
        ("c", OK),
    ]
    assert "cannot reach node c at 10.0.0.3 (no route to host)" in found[0][1].found
    assert list(check_network.between({"a": nodes["a"]}, asked(tmp_path))) == []
