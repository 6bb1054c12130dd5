"""What a driver does on a cluster whose second node has a disk of its own.

It is run in a process of its own: Ray reads a cluster's token once in a process. Of two
folders the driver sees the first, and the second takes its place on the second node.
What each step is answered is printed behind its name.
"""

import shutil
import sys
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import ray
from PIL import Image
from ray.util.placement_group import (
    placement_group,
    placement_group_table,
    remove_placement_group,
)

from rrl_dist.cli.prepare import prepare
from rrl_dist.core.errors import UserError
from rrl_dist.data.datasets import DataSource
from rrl_dist.data.prepare import beton_of
from rrl_dist.data.seal import seal
from rrl_dist.data.shards import write_encoded
from rrl_dist.training import copies, group, node_data
from rrl_dist.training.build import build
from rrl_dist.training.cluster import session
from rrl_dist.training.node_data import Readers, check_data, check_here, expected
from rrl_dist.training.nodes import alive_nodes, task_on
from tests.composing import compose

PATIENCE = 300
AUTO = {"kind": "auto", "workers": 1, "threads": 1, "gpu": False}


def make_images(folder: Path) -> None:
    for i in range(12):
        place = folder / "images" / "ab"[i % 2] / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        grey = np.full((8, 8), 20 * i, dtype=np.uint8)
        Image.fromarray(grey).save(place)


def jpeg(pixels: Any) -> bytes:
    file = BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def second_node() -> str:
    own = ray.get_runtime_context().get_node_id()
    deadline = time.monotonic() + PATIENCE
    while len(alive_nodes()) < 2:
        assert time.monotonic() < deadline, "the second node never came"
        time.sleep(0.1)
    return next(n["NodeID"] for n in alive_nodes() if n["NodeID"] != own)


def check_placement(node: str, other: str) -> None:
    """Workers are not placed on a node that is left out."""
    for left_out, used in ((node, other), (other, node)):
        cluster = {"gpu": False, "cpus_per_worker": 1}
        told = group._scaling(cluster, 2, [left_out])["label_selector"]
        places = placement_group([{"CPU": 1}] * 2, bundle_label_selector=[told] * 2)
        ray.get(places.ready(), timeout=PATIENCE)
        found = placement_group_table(places)["bundles_to_node_id"].values()
        assert set(found) == {used}
        remove_placement_group(places)


def join_late(data: Any, beton: str, wanted: Any) -> None:
    """As a worker that finds itself on a node that nobody has asked."""
    copies._PART = 900  # so that there are several
    source: DataSource = build(data)
    check_here(source.split("train"), Path(beton), wanted)


def main() -> None:
    here, there = map(Path, sys.argv[1:])
    config = compose(
        "prepare",
        "data=imagefolder",
        f"data.root={here / 'images'}",
        "data.size=8",
        "data.memory_limit_mb=0",
        "splits=[train]",
        "cluster=auto",
        "cluster.betons=node",
        f"betons={here / 'betons'}",
    )
    data = config["data"]
    make_images(here)
    shutil.copytree(here / "images", there / "images")
    source: DataSource = build(data)
    images = source.split("train")
    beton = beton_of(here / "betons", images)

    def ask(step: str, cluster: Any) -> None:
        read, news = [(data, {"train": images.fingerprint})], list[str]()
        try:
            check_data(cluster, read, [beton], news.append)
        except UserError as error:
            news.append(str(error))
        print(f"{step}: {' '.join(news) or 'fine'}", flush=True)

    encoded = [[jpeg(image) for image in images.images]]
    write_encoded(images, beton, encoded, progress=lambda done, total: None)
    seal(beton)

    def show(step: str, cluster: Any) -> None:
        """As a node that comes while a stage is trained."""
        node_data._SHOWN.clear()
        wanted = expected(cluster, images.fingerprint, beton)
        stage, news = {"data": data, "split": "train", "expected": wanted}, list[str]()
        readers = Readers(stage, cluster, news.append)
        (second,) = (known for known in alive_nodes() if known["NodeID"] == node)
        deadline = time.monotonic() + PATIENCE
        while not readers.fit(second) and not news:
            assert time.monotonic() < deadline, "the node did not answer"
            time.sleep(0.1)
        assert readers.fit(second) == (not news)
        assert (node in readers.unfit()) == bool(news)
        print(f"{step}: {' '.join(news) or 'fine'}", flush=True)

    with session(AUTO) as found:
        shared, own = ({**found, "betons": where} for where in ("shared", "node"))
        node, copy = second_node(), there / "betons" / beton.name
        check_placement(node, ray.get_runtime_context().get_node_id())
        ask("missing", shared)
        show("missing where it joins", shared)
        wanted = expected(own, images.fingerprint, beton)
        ray.get(task_on(node, join_late).remote(data, str(beton), wanted))
        assert copy.read_bytes() == beton.read_bytes()
        show("there where it joins", own)
        ask("copied by a worker", own)
        shutil.rmtree(copy.parent)
        ask("missing on a disk of its own", own)
        assert copy.read_bytes() == beton.read_bytes()
        copy.write_bytes(copy.read_bytes()[:-1] + b"x")
        ask("damaged", own)
        ask("damaged and shared", shared)
        other = there / "images" / "a" / "0.png"
        Image.fromarray(np.eye(8, dtype=np.uint8)).save(other)
        ask("another image", own)
        shutil.rmtree(there / "images")
        ask("no images", own)
    shutil.copytree(here / "images", there / "images")
    prepare(config, "")
    assert copy.read_bytes() == beton.read_bytes()


if __name__ == "__main__":
    main()
