"""Where a run happens: this process, Ray on this machine, or a Ray cluster."""

import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rrl_dist.core.errors import UserError
from rrl_dist.core.interrupts import handlers_kept
from rrl_dist.training.devices import check_driver, gpus_here, uses_gpus

Cluster = dict[str, Any]

# Workers for each core of one machine, to try there what a cluster will do.
_CROWD = 4


@contextmanager
def session(config: Mapping[str, Any]) -> Iterator[Cluster]:
    """Start or join what `config` asks for; yields it with what was found out.

    Args:
        config: `kind` (debug, local, auto), `workers`, `threads`, `gpu` (true, false
            or "auto"), and but for debug `max_failures`.

    Yields:
        the configuration with `gpu` settled and `cpus_per_worker` set.

    Raises:
        UserError: what is asked for is not there, before any worker starts.
    """
    check(config)
    kind, workers = config["kind"], int(config["workers"])
    if kind == "debug":
        yield {**config, "gpu": uses_gpus(config, gpus_here())}
        return
    try:
        import ray
    except ImportError as error:
        raise UserError(
            f"cluster={kind} needs Ray ({error}); install it or use cluster=debug"
        ) from None
    _start(kind, workers)
    try:
        found = ray.cluster_resources()  # type: ignore[no-untyped-call]
        yield _settled(config, found)
    finally:
        ray.shutdown()


def check(config: Mapping[str, Any]) -> None:
    """Find mistakes that need no cluster to be seen.

    Raises:
        UserError: a number or kind that cannot be.
    """
    kind, workers, threads = (config[k] for k in ("kind", "workers", "threads"))
    if kind not in ("debug", "local", "auto"):
        raise UserError(f"cluster.kind={kind}; choose debug, local or auto")
    for name, value in (("workers", workers), ("threads", threads)):
        if int(value) < 1:
            raise UserError(f"cluster.{name}={value}; set at least 1")
    if kind == "debug" and int(workers) != 1:
        raise UserError(f"cluster=debug has one worker, not {workers}; use local")
    if kind == "auto":
        uses_gpus(config, int(workers))  # those of the cluster are not known yet
    else:
        _check_machine(config)


def _check_machine(config: Mapping[str, Any]) -> None:
    """Whether this machine has what its workers need."""
    if config["gpu"] is not False:
        check_driver()
    cores, workers = os.cpu_count() or 1, int(config["workers"])
    if not uses_gpus(config, gpus_here()) and workers > _CROWD * cores:
        raise UserError(
            f"cluster.workers={workers}, but this machine has {cores} cores; set "
            f"cluster.workers={cores}, or to try things out at most {_CROWD * cores}"
        )


def _start(kind: str, workers: int) -> None:
    # Read by Ray when it is imported: it prints no advice, and reports usage to no one.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    if kind == "local":
        # Workers may outnumber cores, to try on a laptop what a cluster will do; the
        # store passes configurations and single pictures only.
        options |= {
            "address": "local",
            "num_cpus": max(os.cpu_count() or 1, workers + 1),
            "include_dashboard": False,
            "object_store_memory": 256 * 2**20,
        }
        if shlex.quote(sys.executable) != sys.executable:
            # Ray puts the interpreter's path into a shell command as it is, and
            # workers never start where it has a space.
            quoted = shlex.quote(sys.executable)
            options["runtime_env"] = {"py_executable": quoted}
    else:
        options["address"] = "auto"
    try:
        # Ray's own answer to SIGTERM would end the process without a word.
        with handlers_kept():
            ray.init(**options)
    except ConnectionError:
        raise UserError(
            "cluster=auto found no Ray cluster that lets it in; run inside a Ray job, "
            "or set RAY_ADDRESS and RAY_AUTH_MODE=token, or use cluster=local"
        ) from None


def _settled(config: Mapping[str, Any], resources: Mapping[str, float]) -> Cluster:
    workers = int(config["workers"])
    gpu = uses_gpus(config, int(resources.get("GPU", 0)))
    cpus = int(resources.get("CPU", 0))
    if workers > cpus:
        raise UserError(
            f"cluster.workers={workers} but the cluster has {cpus} CPUs; "
            f"set cluster.workers={max(cpus, 1)}"
        )
    return {**config, "gpu": gpu, "cpus_per_worker": 1}


def worker_variables(*, threads: int, gpu: bool) -> dict[str, str]:
    """Environment of a worker: its number of threads, and no GPU if it is to have none.

    The threads spin briefly: two on two busy cores were 18 times slower than one with
    OpenMP's default.
    """
    variables = {"OMP_NUM_THREADS": str(threads), "GOMP_SPINCOUNT": "10000"}
    return variables if gpu else {**variables, "CUDA_VISIBLE_DEVICES": ""}
