"""Cores and GPUs, and whether this torch can use the GPUs: it says nothing and goes on
on the CPU where the driver is too old for it."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping

import torch

from rrl_dist.doctor.finding import Asked, Finding, Seen, ok, warn
from rrl_dist.training.devices import check_driver, gpus_here


def look(asked: Asked) -> Seen:
    """Names each kind of GPU.

    Raises:
        UserError: of `check_driver`.
    """
    check_driver()
    names = Counter(_name(place) for place in range(gpus_here()))
    if asked.gpus > gpus_here():
        told = f"Ray counts {asked.gpus:g} GPUs, and torch sees {gpus_here()}"
        mend = "start Ray there without --num-gpus, and see what nvidia-smi says"
        return Seen((warn(told, mend),), {"gpus": dict(names)})
    gpus = [f"{count} x {name}" for name, count in names.items()] or ["no GPU"]
    told = ", ".join([f"{os.cpu_count()} CPU cores", *gpus])
    return Seen((ok(told),), {"gpus": dict(names)})


def compare(
    own: Mapping[str, Mapping[str, int]],
    nodes: Mapping[str, Mapping[str, Mapping[str, int]]],
) -> Iterator[tuple[str, Finding]]:
    """Names nodes whose GPUs are of another kind than most nodes'; the driver's own,
    which often has none, count for nothing."""
    kinds = {n: ", ".join(sorted(f["gpus"])) for n, f in nodes.items() if f["gpus"]}
    if len(set(kinds.values())) < 2:
        return
    most, _ = Counter(kinds.values()).most_common(1)[0]
    for node, kind in kinds.items():
        if kind != most:
            told = f"{kind}, where most nodes have {most}"
            yield node, warn(told, "all wait for the slowest: use GPUs of one kind")


def _name(place: int) -> str:
    found = torch.cuda.get_device_properties(place)
    return f"{found.name} ({found.total_memory / 2**30:.0f} GiB)"
