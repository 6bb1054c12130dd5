"""Whether the images can be read, and are the same on all nodes."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rrl_dist.data.datasets import SPLITS, DataSource
from rrl_dist.data.seal import current_hash
from rrl_dist.doctor.finding import Asked, Finding, Seen, fail, ok
from rrl_dist.training.build import build

Facts = Mapping[str, Any]

_DATA_MEND = (
    "set data.root to a folder that all nodes share, or copy the driver's there"
)
_BETONS_MEND = "set betons= to a folder that all nodes share, or cluster.betons=node"


def look(asked: Asked) -> Seen:
    """Reads every split, and hashes the `.beton` files of the data set.

    Raises:
        UserError: of the data set.
    """
    source: DataSource = build(asked.data)
    source.check()
    splits = [s for s in SPLITS if s != "val" or source.val_fraction > 0]
    found = {name: source.split(name).fingerprint for name in splits}
    betons = sorted(Path(asked.betons).glob(f"{source.name}-*.beton"))
    told = f"{source.name} can be read"
    if betons:
        told = f"{told}, and has {len(betons)} .beton files"
    hashes = {path.name: current_hash(path) for path in betons}
    facts = {"name": source.name, "splits": found, "betons": hashes}
    return Seen((ok(told),), {**facts, "shared": asked.betons_shared})


def compare(own: Facts, nodes: Mapping[str, Facts]) -> Iterator[tuple[str, Finding]]:
    """Holds images and files against the driver's."""
    for node, there in nodes.items() if own else ():
        splits = _apart(own["splits"], there["splits"])
        if splits:
            told = f"{own['name']} ({splits}) is not what the driver reads"
            yield node, fail(told, _DATA_MEND)
        if missing := _missing(own, there):
            yield node, fail(f"there is no {missing}", _BETONS_MEND)
        common = {k: v for k, v in own["betons"].items() if k in there["betons"]}
        if files := _apart(common, there["betons"]):
            told = f"{files}: not the driver's file"
            mend = f"rrl prepare data={own['name']} cluster=auto, or {_BETONS_MEND}"
            yield node, fail(told, mend)


def _missing(own: Facts, there: Facts) -> str:
    """Files that a node lacks where all are to read the same ones."""
    if not own["shared"]:
        return ""
    return ", ".join(sorted(own["betons"].keys() - there["betons"].keys()))


def _apart(wanted: Mapping[str, str], found: Mapping[str, str]) -> str:
    return ", ".join(name for name in wanted if found.get(name) != wanted[name])
