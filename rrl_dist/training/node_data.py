"""Whether all nodes of a cluster read the same images as the driver, before any worker
starts, and on nodes that come later."""

import platform
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rrl_dist.core.errors import UserError
from rrl_dist.data.datasets import DataSource, ImageSet
from rrl_dist.data.loader import FFCV_MEND
from rrl_dist.data.seal import current_hash
from rrl_dist.training.build import build
from rrl_dist.training.copies import ensure
from rrl_dist.training.nodes import Node, alive_nodes, answer_of, node_name, task_on

Config = Mapping[str, Any]
# Configuration of a data set, and fingerprints of splits of it by their names.
Splits = tuple[Config, Mapping[str, str]]

# Ids of nodes, and fingerprints of splits that they have shown this process to have.
_SHOWN: set[tuple[str, str]] = set()


def check_data(
    cluster: Config,
    images: Sequence[Splits],
    betons: Sequence[Path],
    notify: Callable[[str], None],
    *,
    repair: bool = False,
) -> None:
    """Let every node with room for workers show that it reads what the driver has read.

    A `.beton` file is hashed in full once on a node, see `current_hash`. With
    `cluster.betons=node` it is copied to nodes that have none.

    Args:
        cluster: as `session` yields it, and perhaps `betons`, "shared" or "node".
        images: splits that workers read from the data set itself.
        betons: files, which the driver has.
        notify: told of each copy.
        repair: whether copies that differ are replaced.

    Raises:
        UserError: naming a node, what it has not or has otherwise, and what to change.
    """
    # Who has joined a session is not the first: who began it has asked the nodes.
    if cluster["kind"] != "auto" or cluster.get("joined"):
        return
    files = {str(path): current_hash(path) for path in betons}
    own, source = _own_node(), _source(cluster)
    others = [
        node
        for node in alive_nodes()
        # Where there are no CPUs, as on many a head, nobody works.
        if node["NodeID"] != own and node["Resources"].get("CPU", 0) > 0
    ]
    asked = [
        task_on(node["NodeID"], look).remote(list(images), files, source, repair)
        for node in others
    ]
    for node, reference in zip(others, asked, strict=True):
        for path in answer_of(node, reference):
            notify(f"copied to node {node_name(node)}: {path}")
    seen = {fingerprint for _, wanted in images for fingerprint in wanted.values()}
    nodes = (own, *(node["NodeID"] for node in others))
    _SHOWN.update((node, fingerprint) for node in nodes for fingerprint in seen)


class Readers:
    """Which nodes read the same images as the driver, as nodes come while it trains.

    Each that has not shown it yet is asked once, as by `check_data`.

    Args:
        stage: plain configuration, see `train_stage`.
        cluster: as `session` yields it.
        notify: told in one line of a node that is left out, and of copies.
    """

    def __init__(
        self, stage: Config, cluster: Config, notify: Callable[[str], None]
    ) -> None:
        self.stage, self.notify = stage, notify
        self.wanted: Config | None = stage.get("expected")
        self._asked: dict[str, Any] = {}
        self._left_out = set[str]()
        if self.wanted is not None and cluster.get("joined"):
            # Who began the session has asked those that were there.
            shown = self.wanted["images"]
            _SHOWN.update((node["NodeID"], shown) for node in alive_nodes())

    def fit(self, node: Node) -> bool:
        """Whether a node has shown that it reads them; waits for none.

        Args:
            node: as Ray knows it.
        """
        # Where there are no CPUs nobody works.
        if self.wanted is None or not node["Resources"].get("CPU"):
            return True
        shown = (node["NodeID"], self.wanted["images"])
        if shown not in _SHOWN and self._reads(node, self.wanted):
            _SHOWN.add(shown)
        return shown in _SHOWN

    def unfit(self) -> list[str]:
        """Ids of the other nodes."""
        return [node["NodeID"] for node in alive_nodes() if not self.fit(node)]

    def _reads(self, node: Node, wanted: Config) -> bool:
        """Whether it has answered, now, that it does."""
        import ray

        name = node["NodeID"]
        if name in self._left_out:
            return False
        if name not in self._asked:
            self._asked[name] = _ask(name, self.stage, wanted)
        done, _ = ray.wait([self._asked[name]], timeout=0)
        if not done:
            return False
        try:
            for path in answer_of(node, self._asked.pop(name)):
                self.notify(f"copied to node {node_name(node)}: {path}")
        except UserError as error:
            self._left_out.add(name)
            self.notify(f"{error}; the node is left out until it is started again")
            return False
        return True


def _ask(node: str, stage: Config, wanted: Config) -> Any:
    images = [(stage["data"], {stage["split"]: wanted["images"]})]
    files = {} if wanted["path"] is None else {wanted["path"]: wanted["beton"]}
    return task_on(node, look).remote(images, files, wanted["source"], False)


def _own_node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def _source(cluster: Config) -> str | None:
    """The node that copies are made of; None where nodes share their files."""
    return _own_node() if cluster.get("betons") == "node" else None


def look(
    images: Sequence[Splits], files: Mapping[str, str], source: str | None, repair: bool
) -> list[str]:
    """Runs on a node; returns the files that were copied there.

    Raises:
        UserError: see `check_data`.
    """
    if files and find_spec("ffcv") is None:
        raise UserError(f"FFCV is not installed; {FFCV_MEND}, or set loader=memory")
    for data, wanted in images:
        found: DataSource = build(data)
        for name, fingerprint in wanted.items():
            _check_images(found.split(name), fingerprint)
    return [
        path
        for path, sha256 in files.items()
        if ensure(Path(path), sha256, source, repair=repair)
    ]


def _check_images(images: ImageSet, fingerprint: str) -> None:
    if images.fingerprint != fingerprint:
        raise UserError(
            f"{images.name} is not what the driver has read; set data.root to a folder "
            "that all nodes share, or copy the driver's there"
        )


def expected(cluster: Config, fingerprint: str, beton: Path | None) -> Config | None:
    """What workers of a stage hold against what they find; None where they run where
    the driver does.

    Args:
        cluster: see `check_data`.
        fingerprint: of the split.
        beton: its file; None where it is read from memory.
    """
    if cluster["kind"] != "auto":
        return None
    return {
        "images": fingerprint,
        "path": None if beton is None else str(beton),
        "beton": None if beton is None else current_hash(beton),
        "source": _source(cluster),
    }


def check_here(images: ImageSet, beton: Path | None, wanted: Config | None) -> None:
    """On a worker, which may be on a node that was not there when nodes were asked.

    Args:
        images: as it has read them.
        beton: where their file is, or is to be.
        wanted: see `expected`.

    Raises:
        UserError: see `check_data`.
    """
    if wanted is None:
        return
    try:
        _check_images(images, wanted["images"])
        if beton is not None and wanted["beton"] is not None:
            ensure(beton, wanted["beton"], wanted["source"], repair=False)
    except UserError as error:
        raise UserError(f"node {platform.node()}: {error}") from None
