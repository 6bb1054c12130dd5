"""Nodes of a cluster that have other images than the driver, or none."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rrl_dist.core.errors import UserError
from rrl_dist.data.datasets import ImageSet
from rrl_dist.data.seal import seal
from rrl_dist.training.cluster import check
from rrl_dist.training.node_data import check_data, check_here, expected
from tests.composing import random_images
from tests.evaluate.nodes import NoClusterError, started_head

PATIENCE = 600
BETON = "FOLDER/betons/SET.beton"
SHARE = "set betons= to a folder that all nodes share, or cluster.betons=node"
ANSWERS = f"""\
missing: node NAME: there is no {BETON}; {SHARE}
missing where it joins: node NAME: there is no {BETON}; {SHARE}; \
the node is left out until it is started again
there where it joins: fine
copied by a worker: fine
missing on a disk of its own: copied to node NAME: {BETON}
damaged: node NAME: {BETON} there is damaged, or another file than the driver's; \
write it again with rrl prepare on this cluster, with cluster.betons=node
damaged and shared: node NAME: {BETON} there is another file than the driver's; {SHARE}
another image: node NAME: imagefolder-train is not what the driver has read; \
set data.root to a folder that all nodes share, or copy the driver's there
no images: node NAME: no folder FOLDER/images; \
set data.root to a folder with train/CLASS/*.jpg or CLASS/*.jpg
running  imagefolder-train: 8 images
         {BETON}
         copied to node NAME: {BETON}
"""


@pytest.fixture
def images() -> ImageSet:
    return random_images(9, 4)


@pytest.fixture
def beton(tmp_path: Path) -> Path:
    path = tmp_path / "x.beton"
    path.write_bytes(b"as the driver has it")
    seal(path)
    return path


def test_a_worker_takes_only_what_the_driver_has(
    images: ImageSet, beton: Path, tmp_path: Path
) -> None:
    wanted = expected({"kind": "auto"}, images.fingerprint, beton)
    check_here(images, beton, wanted)
    others = replace(images, images=255 - np.asarray(images.images))
    with pytest.raises(UserError, match=r"^node \S+: random is not what the driver"):
        check_here(others, beton, wanted)
    with pytest.raises(UserError, match=r"there is no \S+y\.beton; set betons="):
        check_here(images, tmp_path / "y.beton", wanted)
    beton.write_bytes(b"as another node has it")
    with pytest.raises(UserError, match=r"another file than the driver's; set betons="):
        check_here(images, beton, wanted)
    # Read from memory, it need not be there.
    memory = expected({"kind": "auto"}, images.fingerprint, None)
    check_here(images, tmp_path / "y.beton", memory)


@pytest.mark.parametrize("kind", ["debug", "local"])
def test_where_there_is_one_node_nobody_is_asked(kind: str, images: ImageSet) -> None:
    cluster = {"kind": kind}
    missing = [Path("nowhere.beton")]
    check_data(cluster, [], missing, pytest.fail)
    assert expected(cluster, images.fingerprint, missing[0]) is None


def test_an_unknown_place_is_refused() -> None:
    auto = {"kind": "auto", "workers": 1, "threads": 1, "gpu": False, "betons": "disk"}
    with pytest.raises(UserError, match="betons=disk; choose shared or node"):
        check(auto)


@pytest.mark.slow
def test_a_node_with_a_disk_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("ffcv", reason="FFCV is not installed")
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    try:
        with started_head(print) as nodes:
            nodes.start_second({here: there})
            nodes.wait_for_second()
            found = subprocess.run(
                [sys.executable, "-m", "tests.training.own_disks", here, there],
                env=nodes.environment,
                cwd=Path(__file__).parents[2],
                capture_output=True,
                text=True,
                timeout=PATIENCE,
            )
    except NoClusterError as error:
        pytest.skip(str(error))
    assert found.returncode == 0, found.stdout + found.stderr
    answers = re.sub(r"imagefolder-train-\S+\.beton", "SET.beton", found.stdout)
    answers = re.sub(r"node \S+ \([\d.]+\)", "node NAME", answers)
    assert answers.replace(str(here), "FOLDER") == ANSWERS
