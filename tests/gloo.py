"""Runs a function in W gloo processes; one pool of them serves all tests."""

import multiprocessing
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

MOST = 4


@cache
def _pool() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(MOST, mp_context=context)


def run_workers(workers: int, function: Callable[..., Any], *args: Any) -> list[Any]:
    """What `function(*args)` returns in each of `workers` processes, by rank.

    The function lives at the top of a module. Each call has a process group of its
    own; all calls block in it until all have come, so each has its own process.
    """
    with tempfile.TemporaryDirectory() as folder:
        meeting = str(Path(folder) / "store")
        futures = [
            _pool().submit(_in_group, function, args, rank, workers, meeting)
            for rank in range(workers)
        ]
        # The one that fails first: the others may wait for it.
        done, _ = wait(futures, timeout=300, return_when=FIRST_EXCEPTION)
        for future in done:
            future.result()
        return [future.result(timeout=0) for future in futures]


def _in_group(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    rank: int,
    workers: int,
    meeting: str,
) -> Any:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=workers
    )
    try:
        return function(*args)
    finally:
        dist.destroy_process_group()
        _forget_group()


def _forget_group() -> None:
    """DeepSpeed keeps the group that it saw first, and numbers modules since then."""
    if "deepspeed" in sys.modules:
        import deepspeed
        from deepspeed.runtime.zero.parameter_offload import DeepSpeedZeRoOffload
        from deepspeed.runtime.zero.partition_parameters import Init

        deepspeed.comm.comm.cdb = None
        deepspeed.utils.groups._WORLD_GROUP = None
        Init.param_id = 0
        numbered = DeepSpeedZeRoOffload._register_deepspeed_module
        numbered.__defaults__[0][0] = 0
