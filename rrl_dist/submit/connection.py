"""How a dashboard is reached: its address, token, certificates and proxy."""

import os
import socket
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from rrl_dist.core.errors import UserError

ADDRESS = "http://127.0.0.1:8265"
TOKEN = Path("~/.ray/auth_token")
_PATIENCE = 10  # seconds until a machine has answered
# Of other programs too; the first that is set counts.
_AUTHORITIES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")


def address_of(given: str | None) -> str:
    """Raises `UserError` where it cannot be one."""
    outside = [os.environ.get(k) for k in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")]
    http = [value for value in outside if value and value.startswith("http")]
    found = (given or next(iter(http), ADDRESS)).rstrip("/")
    parts = urlsplit(found)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(
            f"address={found}; give that of the dashboard, such as address={ADDRESS}"
        )
    return found


def use_token() -> str | None:
    """Where this machine has a token, if it has; Ray is told to use it."""
    places = {
        "RAY_AUTH_TOKEN": os.environ.get("RAY_AUTH_TOKEN"),
        "RAY_AUTH_TOKEN_PATH": os.environ.get("RAY_AUTH_TOKEN_PATH"),
        str(TOKEN): TOKEN.expanduser().is_file(),
    }
    found = next((place for place, there in places.items() if there), None)
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    if found == "RAY_AUTH_TOKEN_PATH" and not Path(str(path)).is_file():
        raise UserError(f"RAY_AUTH_TOKEN_PATH={path} is no file; write the token there")
    if found is not None:
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    else:
        # Ray would end with a page of advice before the cluster is asked whether it
        # wants one.
        os.environ["RAY_AUTH_MODE"] = "disabled"
    return found


def trusted(address: str, verify: bool | str | None) -> bool | str:
    """What Ray's client is to hold a certificate against: a file or folder of
    authorities, True for those of the system, False for none.

    Args:
        address: of the dashboard.
        verify: the same; None: the file or folder that REQUESTS_CA_BUNDLE,
            CURL_CA_BUNDLE or SSL_CERT_FILE name, else True.

    Raises:
        UserError: there is no such file or folder.
    """
    if urlsplit(address).scheme != "https" or isinstance(verify, bool):
        return verify is not False
    told = {"verify": verify, **{name: os.environ.get(name) for name in _AUTHORITIES}}
    name, place = next(((n, p) for n, p in told.items() if p), ("", ""))
    path = Path(place or "").expanduser()
    if place and not path.exists():
        raise UserError(f"{name}={place} is not there; give a file of certificates")
    return str(path) if place else True


def check_reached(address: str) -> bool:
    """Whether a proxy stands between, which then answers for it.

    Raises:
        UserError: no machine answers, soon.
    """
    parts = urlsplit(address)
    proxies = getproxies()
    by_proxy = proxies.get(parts.scheme) or proxies.get("all")
    if by_proxy and not proxy_bypass(str(parts.hostname)):
        return True
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname, port), _PATIENCE).close()
    except OSError:
        raise UserError(unreachable(address)) from None
    return False


def unreachable(address: str, told: str = "", proxied: bool = False) -> str:
    """That, and what to do.

    Args:
        address: of the dashboard.
        told: by who tried.
        proxied: see `check_reached`.
    """
    if "CERTIFICATE_VERIFY_FAILED" in told:
        return (
            f"{address} shows a certificate of an authority that is not trusted here; "
            "give the file of that by verify=FILE"
        )
    if proxied:
        return (
            f"no Ray dashboard answers at {address}, which was asked by a proxy; set "
            f"NO_PROXY={urlsplit(address).hostname} where it needs none"
        )
    return (
        f"no Ray dashboard answers at {address}; start the cluster, or forward its "
        "port here: ssh -L 8265:127.0.0.1:8265 HEAD"
    )
