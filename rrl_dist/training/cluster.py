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
from rrl_dist.training.head import check_head, refused

Cluster = dict[str, Any]

# Workers for each core of one machine, to try there what a cluster will do.
_CROWD = 4


@contextmanager
def session(config: Mapping[str, Any]) -> Iterator[Cluster]:
    """Start or join what `config` asks for; yields it with what was found out.

    Args:
        config: `kind` (debug, local, auto), `workers`, `threads`, `gpu` (true, false
            or "auto"), but for debug `max_failures`, and perhaps `max_workers`; for
            debug alone perhaps `anomaly` and `overfit`.

    Yields:
        the configuration with `gpu` settled, and but for debug `asked_gpu` as it was,
        `cpus_per_worker`, and the `cpus` and `gpus` that there are: perhaps too few for
        all workers, see `places` and `check_places`.

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


def joined(config: Mapping[str, Any]) -> Cluster:
    """As `session`, of the Ray session that this process is in already; that also says
    that it is `joined`.

    Raises:
        UserError: what is asked for is not there.
    """
    import ray

    found = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return {**_settled(config, found), "joined": True}


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
    if config.get("betons", "shared") not in ("shared", "node"):
        raise UserError(f"cluster.betons={config['betons']}; choose shared or node")
    _check_elastic(config, int(workers))
    _check_debugging(config)
    if kind == "debug" and int(workers) != 1:
        raise UserError(f"cluster=debug has one worker, not {workers}; use local")
    if kind == "auto":
        uses_gpus(config, int(workers))  # those of the cluster are not known yet
    else:
        _check_machine(config)


def _check_debugging(config: Mapping[str, Any]) -> None:
    overfit = config.get("overfit")
    if overfit is not None and (type(overfit) is not int or overfit < 1):
        raise UserError(
            f"cluster.overfit={overfit}; set how many batches, from 1 on, or null"
        )
    for name in ("anomaly", "overfit"):
        if config.get(name) and config["kind"] != "debug":
            raise UserError(
                f"cluster.{name} is for cluster=debug alone; use that, or leave it out"
            )


def _check_elastic(config: Mapping[str, Any], workers: int) -> None:
    most, least = config.get("max_workers"), config.get("min_workers")
    if most is not None and int(most) < workers:
        raise UserError(
            f"cluster.max_workers={most} is less than cluster.workers={workers}; set "
            f"cluster.max_workers={workers} or more, or null"
        )
    if least is not None and not 1 <= int(least) <= workers:
        raise UserError(
            f"cluster.min_workers={least} is not within 1 and cluster.workers="
            f"{workers}; set a number that is, or null"
        )
    if float(config.get("wait", 0)) < 0:
        raise UserError(f"cluster.wait={config['wait']}; set seconds, 0 or more")


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
        if kind == "auto":
            check_head()
        _init(options)
    except ConnectionError:
        raise UserError(
            "cluster=auto found no Ray cluster that lets it in; run inside a Ray job, "
            "or set RAY_ADDRESS and RAY_AUTH_MODE=token, or use cluster=local"
        ) from None


def _init(options: Mapping[str, Any]) -> None:
    """Ray gives its own processes 30 seconds, which a machine that is busy may not
    keep: then once more."""
    import ray

    for again in (True, False):
        try:
            # Ray's own answer to SIGTERM would end the process without a word.
            with handlers_kept():
                ray.init(**options)
            return
        except ConnectionError:
            raise
        except ray.exceptions.AuthenticationError:
            raise UserError(refused()) from None
        except Exception as error:  # Ray raises plain ones
            ray.shutdown()
            if not again:
                told = f"{error}".strip().partition("\n")[0].rstrip(".")
                raise UserError(
                    f"Ray did not start, twice ({told}); end what keeps this machine "
                    "busy and give the same command again, or use cluster=debug"
                ) from error


def _settled(config: Mapping[str, Any], resources: Mapping[str, float]) -> Cluster:
    cpus, gpus = (int(resources.get(kind, 0)) for kind in ("CPU", "GPU"))
    settled = {"cpus_per_worker": 1, "cpus": cpus, "gpus": gpus}
    # Nodes of a cluster may still come: who needs them looks for what is missing.
    asked = config["gpu"]
    may_come = config["kind"] == "auto" and asked is True
    gpu = may_come or uses_gpus({**config, "workers": 1}, gpus)
    return {**config, "gpu": gpu, "asked_gpu": asked, **settled}


def places(cluster: Mapping[str, Any]) -> int:
    """Of the workers that are asked for, those that a started cluster has room for.

    Raises:
        UserError: it has room for none.
    """
    workers = int(cluster["workers"])
    if cluster["kind"] == "debug":
        return workers
    check_cpus(cluster)
    uses_gpus({**cluster, "workers": 1}, int(cluster["gpus"]))
    room = cluster["cpus"] // cluster["cpus_per_worker"]
    if cluster["gpu"]:
        room = min(room, int(cluster["gpus"] / cluster.get("gpus_per_worker", 1)))
    return min(workers, max(int(room), 1))


def check_places(cluster: Mapping[str, Any]) -> None:
    """For those whose workers must all be there at once, as in training.

    Raises:
        UserError: the cluster has no room for them.
    """
    check_cpus(cluster)
    workers, cpus = int(cluster["workers"]), int(cluster["cpus"])
    uses_gpus(cluster, int(cluster["gpus"]))
    if workers > cpus:
        raise UserError(
            f"cluster.workers={workers} but the cluster has {cpus} CPUs; "
            f"set cluster.workers={cpus}"
        )


def check_cpus(cluster: Mapping[str, Any]) -> None:
    """For those who cannot wait for nodes.

    Raises:
        UserError: a started cluster has no CPUs.
    """
    if cluster["cpus"] < 1:
        raise UserError(
            f"cluster.workers={cluster['workers']} but the cluster has no CPUs; start "
            "a node that has some"
        )


def worker_variables(*, threads: int, gpu: bool) -> dict[str, str]:
    """Environment of a worker: its number of threads, and no GPU if it is to have none.

    The threads spin briefly: two on two busy cores were 18 times slower than one with
    OpenMP's default.
    """
    variables = {"OMP_NUM_THREADS": str(threads), "GOMP_SPINCOUNT": "10000"}
    return variables if gpu else {**variables, "CUDA_VISIBLE_DEVICES": ""}
