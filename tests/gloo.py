"""Runs a function in W gloo processes; one pool of them serves all tests."""

import multiprocessing
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
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
        return [future.result(timeout=120) for future in futures]


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
