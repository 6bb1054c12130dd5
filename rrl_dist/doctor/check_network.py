"""By which network interface nodes reach each other, and whether they do."""

import os
import socket
from collections.abc import Iterator, Mapping
from typing import Any

from rrl_dist.core.errors import UserError
from rrl_dist.doctor.finding import Asked, Finding, Seen, fail, failed, ok, warn
from rrl_dist.doctor.interfaces import chosen, gloo_address, interfaces, is_loopback
from rrl_dist.training.nodes import Node, actor_on, answers

_GLOO, _NCCL = "GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"
_SECONDS = 5.0  # to connect
_OPEN = (
    "open all ports between the nodes, or export GLOO_SOCKET_IFNAME before ray start"
)


def look(asked: Asked) -> Seen:
    """What gloo and NCCL are told, held against what is there."""
    there = interfaces()
    variables = [_GLOO, _NCCL] if asked.gpus else [_GLOO]
    variables += [n for n in (_NCCL,) if os.environ.get(n) and n not in variables]
    told = [_judged(name, there, asked) for name in variables]
    wrong = tuple(finding for finding in told if finding is not None)
    return Seen(wrong or (ok("gloo and NCCL find an interface"),))


def _judged(variable: str, there: Mapping[str, str], asked: Asked) -> Finding | None:
    """None where nothing is wrong."""
    own = next((n for n, address in there.items() if address == asked.address), None)
    mend = f"export {variable}={own or 'INTERFACE'} before ray start on that node"
    taken = chosen(variable, list(there))
    if taken is None:
        return _untold(variable, there, asked, mend)
    named = f"{variable}={os.environ[variable]}"
    if not taken:
        return fail(f"{named}: no such interface with an address", mend)
    if own is not None and own not in taken:
        told = f"{named} has {there[taken[0]]}, and Ray knows this node by"
        return warn(f"{told} {asked.address}, of {own}", mend)
    return None


def _untold(
    variable: str, there: Mapping[str, str], asked: Asked, mend: str
) -> Finding | None:
    """Of a node that may take any interface."""
    if asked.address is None or asked.nodes < 2 or is_loopback(asked.address):
        return None
    if variable == _GLOO and is_loopback(gloo_address()):
        told = f"gloo would offer {gloo_address()}, where no other node reaches it"
        return fail(told, mend)
    several = sorted(
        name for name, address in there.items() if not is_loopback(address)
    )
    if len(several) < 2:
        return None
    return warn(f"{variable} is not set, and there are {', '.join(several)}", mend)


class Ear:
    """Listens on a node, at the address that gloo would offer, while it lives."""

    def __init__(self) -> None:
        self._socket = socket.create_server((gloo_address(), 0))

    def where(self) -> tuple[str, int]:
        """Address and port."""
        address, port = self._socket.getsockname()
        return str(address), int(port)

    def reach(self, address: str, port: int) -> str:
        """Connect to another one; returns what went wrong, or ""."""
        try:
            socket.create_connection((address, port), _SECONDS).close()
        except OSError as error:
            return error.strerror or str(error)
        return ""


def between(nodes: Mapping[str, Node], asked: Asked) -> Iterator[tuple[str, Finding]]:
    """Each node connects to the next, and the last to the first."""
    import ray

    if len(nodes) < 2:
        return
    ears = {name: actor_on(node["NodeID"], Ear) for name, node in nodes.items()}
    try:
        places = _asked(nodes, {n: e.where.remote() for n, e in ears.items()}, asked)
        yield from ((n, failed(e)) for n, e in places.items() if _wrong(e))
        there = [name for name, place in places.items() if not _wrong(place)]
        next_of = dict(zip(there, there[1:] + there[:1], strict=True))
        # What offers its loopback has been told so already.
        pairs = {n: o for n, o in next_of.items() if _offered(nodes[o], places[o][0])}
        tries = {n: ears[n].reach.remote(*places[next_]) for n, next_ in pairs.items()}
        told = _asked({name: nodes[name] for name in pairs}, tries, asked)
        for name, other in pairs.items():
            yield name, _reached(told[name], other, places[other])
    finally:
        for ear in ears.values():
            ray.kill(ear)


def _asked(
    nodes: Mapping[str, Node], references: Mapping[str, Any], asked: Asked
) -> dict[str, Any]:
    waiting = [references[name] for name in nodes]
    found = answers(list(nodes.values()), waiting, patience=asked.patience)
    return dict(zip(nodes, found, strict=True))


def _offered(node: Node, address: str) -> bool:
    return is_loopback(node["NodeManagerAddress"]) or not is_loopback(address)


def _wrong(answer: Any) -> bool:
    return isinstance(answer, UserError)


def _reached(answer: Any, other: str, place: tuple[str, int]) -> Finding:
    if _wrong(answer):
        return failed(answer)
    if answer:
        told = f"cannot reach node {other} at {place[0]} ({answer.lower()})"
        return fail(told, _OPEN)
    return ok("each node reaches the next")
