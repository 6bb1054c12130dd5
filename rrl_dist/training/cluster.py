"""Where a run happens: this process, Ray on this machine, or a Ray cluster."""

import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from rrl_dist.core.errors import UserError

Cluster = dict[str, Any]


@contextmanager
def session(config: Mapping[str, Any]) -> Iterator[Cluster]:
    """Start or join what `config` asks for; yields it with what was found out.

    Args:
        config: `kind` (debug, local, auto), `workers`, `threads`, and but for debug
            `gpu` (true, false or "auto") and `max_failures`.

    Yields:
        the configuration with `gpu` settled and `cpus_per_worker` set.

    Raises:
        UserError: what is asked for is not there, before any worker starts.
    """
    check(config)
    kind, workers = config["kind"], int(config["workers"])
    if kind == "debug":
        yield {**config, "gpu": torch.cuda.is_available()}
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
        ray.init(**options)
    except ConnectionError:
        raise UserError(
            "cluster=auto found no Ray cluster that lets it in; run inside a Ray job, "
            "or set RAY_ADDRESS and RAY_AUTH_MODE=token, or use cluster=local"
        ) from None


def _settled(config: Mapping[str, Any], resources: Mapping[str, float]) -> Cluster:
    workers, gpus = int(config["workers"]), int(resources.get("GPU", 0))
    gpu = gpus > 0 if config["gpu"] == "auto" else bool(config["gpu"])
    if gpu and gpus < workers:
        raise UserError(
            f"cluster.workers={workers} but there are {gpus} GPUs; set "
            f"cluster.workers={max(gpus, 1)} or cluster.gpu=false"
        )
    cpus = int(resources.get("CPU", 0))
    if workers > cpus:
        raise UserError(
            f"cluster.workers={workers} but the cluster has {cpus} CPUs; "
            f"set cluster.workers={max(cpus, 1)}"
        )
    return {**config, "gpu": gpu, "cpus_per_worker": 1}


def thread_variables(threads: int) -> dict[str, str]:
    """Environment of a worker with so many threads, which spin only briefly.

    Two threads on two busy cores were 18 times slower than one with OpenMP's default.
    """
    return {"OMP_NUM_THREADS": str(threads), "GOMP_SPINCOUNT": "10000"}
