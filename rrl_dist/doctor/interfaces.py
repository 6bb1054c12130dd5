"""Network interfaces of this machine, and which of them gloo and NCCL take."""

import fcntl
import ipaddress
import os
import socket
import struct

_SIOCGIFADDR = 0x8915  # of Linux: the address of an interface


def interfaces() -> dict[str, str]:
    """IPv4 addresses by interface, of those that have one; loopback too."""
    found = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode()[:15])
            try:
                told = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, request)
            except OSError:  # it has none
                continue
            found[name] = socket.inet_ntoa(told[20:24])
    return found


def is_loopback(address: str) -> bool:
    """Whether an address is one that no other machine reaches."""
    return ipaddress.ip_address(address).is_loopback


def chosen(variable: str, names: list[str]) -> list[str] | None:
    """Those of `names` that an environment variable chooses; None where it is not set.

    Gloo's holds whole names; NCCL's beginnings of names, whole ones after "=", and
    none of them after "^".
    """
    value = os.environ.get(variable, "").strip()
    if not value:
        return None
    if variable.startswith("GLOO"):
        wanted = value.split(",")
        return [name for name in names if name in wanted]
    excludes, listed = value.startswith("^"), value.lstrip("^")
    whole, listed = listed.startswith("="), listed.lstrip("=")
    wanted = listed.split(",")
    return [n for n in names if _named(n, wanted, whole=whole) != excludes]


def _named(name: str, wanted: list[str], *, whole: bool) -> bool:
    return any(name == w if whole else name.startswith(w) for w in wanted)


def gloo_address() -> str:
    """The address that gloo offers to other nodes: that of the interface it is told, or
    of this machine's name, or where the name has none, the loopback."""
    there = interfaces()
    if told := chosen("GLOO_SOCKET_IFNAME", list(there)):
        return there[told[0]]
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return "127.0.0.1"
