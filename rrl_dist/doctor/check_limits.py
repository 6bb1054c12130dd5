"""How many files a process may have open: Ray's have a socket for each other one."""

import resource

from rrl_dist.doctor.finding import Asked, Seen, ok, warn

_FEWEST = 4096


def look(asked: Asked) -> Seen:
    """The limit that runs have here."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < _FEWEST:
        mend = "ulimit -n 65536 before ray start, as cluster/node.sh does"
        return Seen((warn(f"a process may open {soft} files", mend),))
    return Seen((ok(f"a process may open {_FEWEST} files or more"),))
