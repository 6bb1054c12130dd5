"""Whether FFCV reads images here: it is built against libraries of the system."""

from collections.abc import Iterator, Mapping
from importlib.util import find_spec

from rrl_dist.data.loader import FFCV_MEND
from rrl_dist.doctor.finding import Asked, Finding, Seen, fail, ok, warn


def look(asked: Asked) -> Seen:
    """Imports it, as a run does."""
    if find_spec("ffcv") is None:
        found = warn("FFCV is not installed: images are read without it", FFCV_MEND)
        return Seen((found,), {"usable": False})
    from rrl_dist.data.ffcv_loader import import_ffcv

    try:
        import_ffcv()
    # A build against missing or other system libraries fails in many ways.
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        found = fail(f"FFCV cannot be imported ({reason})", FFCV_MEND)
        return Seen((found,), {"usable": False})
    return Seen((ok("FFCV can be imported"),), {"usable": True})


def compare(
    own: Mapping[str, bool], nodes: Mapping[str, Mapping[str, bool]]
) -> Iterator[tuple[str, Finding]]:
    """A driver that has FFCV lets all workers read with it."""
    for node, there in nodes.items():
        if own.get("usable") and not there["usable"]:
            told = "the driver has FFCV, and this node cannot use it"
            yield node, fail(told, f"{FFCV_MEND}; or set loader=memory")
