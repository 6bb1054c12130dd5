"""Whether a cluster's head lets this machine in, asked before Ray does: that would try
for minutes, and not tell a wrong token from a head that is gone."""

import os
import socket
from pathlib import Path

from rrl_dist.core.errors import UserError

_PATIENCE = 10  # seconds until it has answered
_QUESTION = "/ray.rpc.NodeInfoGcsService/CheckAlive"


def check_head() -> None:
    """Ask the head that Ray would join.

    Raises:
        UserError: nobody answers there, or not to the token that is here.
        ConnectionError: Ray knows of no head.
    """
    from ray._private.services import canonicalize_bootstrap_address

    address = canonicalize_bootstrap_address("auto")
    host, _, port = str(address).rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PATIENCE).close()
    except OSError:
        raise UserError(
            f"no Ray cluster answers at {address}; start its head, or set RAY_ADDRESS "
            "to where it is, or use cluster=local"
        ) from None
    if os.environ.get("RAY_USE_TLS", "0").lower() not in ("1", "true"):
        _check_token(str(address))


def _check_token(address: str) -> None:
    import grpc

    token = _token()
    metadata = [("authorization", f"Bearer {token}")] if token else []
    options = [("grpc.enable_http_proxy", 0)]  # as Ray has it
    with grpc.insecure_channel(address, options) as channel:
        ask = channel.unary_unary(_QUESTION)
        try:
            ask(b"", timeout=_PATIENCE, metadata=metadata)
        except grpc.RpcError as error:
            # What else is wrong, Ray tells.
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                raise UserError(refused(address)) from None


def refused(address: str | None = None) -> str:
    """What to do where the head asks for another token, or for one at all."""
    where = f"the Ray cluster at {address}" if address else "the Ray cluster"
    return (
        f"{where} asks for a token, and none that it takes is here; copy the head's "
        "~/.ray/auth_token here, or set RAY_AUTH_TOKEN to it"
    )


def _token() -> str | None:
    """From the places where Ray looks, in its order."""
    if told := os.environ.get("RAY_AUTH_TOKEN"):
        return told.strip()
    named = os.environ.get("RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token")
    try:
        return Path(named).expanduser().read_text().strip()
    except OSError:
        return None
