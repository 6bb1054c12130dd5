"""Whether Ray asks for a token: without one, who reaches its ports runs anything."""

import os
import stat
from pathlib import Path

from rrl_dist.doctor.finding import Asked, Finding, Seen, fail, ok, warn

_MAKE = "ray get-auth-token --generate on one node, then copy ~/.ray/auth_token to all"


def look(asked: Asked) -> Seen:
    """The token itself is never told, nor anything made of it."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "token":
        return Seen((_token(),))
    if asked.node is None:
        return Seen((ok("RAY_AUTH_MODE=token is not set; a cluster needs it"),))
    told = "RAY_AUTH_MODE=token is not set: who reaches Ray's ports can run anything"
    mend = f"export RAY_AUTH_MODE=token before ray start on every node; {_MAKE}"
    return Seen((warn(told, mend),))


def _token() -> Finding:
    """Looked for in the places where Ray does, in the same order."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return ok("Ray asks for a token, and it is there")
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    file = Path(named).expanduser() if named else Path.home() / ".ray" / "auth_token"
    try:
        empty = not file.read_text().strip()
    except OSError as error:
        told = f"Ray asks for a token, and {file} cannot be read ({error.strerror})"
        return fail(told, f"write the token there; {_MAKE}")
    if empty:
        return fail(f"Ray asks for a token, and {file} is empty", _MAKE)
    if stat.S_IMODE(file.stat().st_mode) & 0o077:
        return warn(f"{file} can be read by others", f"chmod 600 {file}")
    return ok("Ray asks for a token, and it is there")
