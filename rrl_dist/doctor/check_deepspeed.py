"""Whether DeepSpeed can be used, which some strategies need."""

import subprocess
import sys
from importlib.util import find_spec

from rrl_dist.doctor.finding import Asked, Seen, fail, ok, warn

_MEND = "set up again with docker/install.sh"


def look(asked: Asked) -> Seen:
    """Imports it in a process of its own, since it writes lines of advice."""
    if find_spec("deepspeed") is None:
        told = "DeepSpeed is not installed, so strategy=deepspeed_... cannot be used"
        return Seen((warn(told, _MEND),))
    problem = _problem(0.9 * asked.patience)
    if problem is None:
        return Seen((ok("DeepSpeed can be imported"),))
    return Seen((fail(f"DeepSpeed cannot be imported ({problem})", _MEND),))


def _problem(patience: float) -> str | None:
    """Why it cannot be imported, in one line."""
    command = [sys.executable, "-c", "import deepspeed"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=patience, check=False
        )
    except subprocess.TimeoutExpired:
        return f"not within {patience:g} s"
    if done.returncode == 0:
        return None
    told = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
    return told[-1]
