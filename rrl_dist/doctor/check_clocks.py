"""Clocks of nodes: locks in object stores are given up by their age."""

import time
from collections.abc import Iterator, Mapping

from rrl_dist.core.errors import UserError
from rrl_dist.doctor.finding import Asked, Finding, failed, ok, warn
from rrl_dist.training.nodes import Node, answer_of, task_on

_APART = 5.0  # seconds


def between(nodes: Mapping[str, Node], asked: Asked) -> Iterator[tuple[str, Finding]]:
    """Asks each node for its time, twice: the first starts a process."""
    for name, node in nodes.items():
        task = task_on(node["NodeID"], now)
        try:
            answer_of(node, task.remote(), patience=asked.patience)
            before = time.time()
            there = answer_of(node, task.remote(), patience=asked.patience)
        except UserError as error:
            yield name, failed(error)
        else:
            yield name, judged(there, before, time.time())


def now() -> float:
    """Runs on a node: its time, in seconds."""
    return time.time()


def judged(there: float, before: float, after: float) -> Finding:
    """What is to be said of a clock.

    Args:
        there: its time, in seconds.
        before, after: the driver's, between which it was read.
    """
    apart = max(before - there, there - after, 0.0)
    if apart > _APART:
        which = "behind" if there < before else "ahead of"
        told = f"the clock is {apart:.0f} s {which} the driver's"
        return warn(told, "let chrony or systemd-timesyncd set that node's clock")
    return ok(f"the clocks agree within {_APART:g} s")
