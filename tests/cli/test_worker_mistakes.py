"""What only one of several workers can see ends the run too, in one line."""

import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.harness import TINY, rrl

pytestmark = pytest.mark.slow


def test_an_image_that_one_worker_cannot_read_ends_the_run(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for split, each in (("train", 40), ("test", 35)):
        for name in ("a", "b"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for i in range(each):
                pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    # Its header is whole, so only decoding it fails, in the worker that it falls to.
    broken = tmp_path / "photos/train/a/07.png"
    content = bytearray(broken.read_bytes())
    content[60:200] = bytes(140)
    broken.write_bytes(bytes(content))
    begin = time.monotonic()
    printed = rrl(
        tmp_path,
        "run",
        *TINY,
        "data=imagefolder",
        f"data.root={tmp_path / 'photos'}",
        "data.size=16",
        "data.memory_limit_mb=0",
        "loader=memory",
        "cluster=local",
        "cluster.workers=2",
        "cluster.threads=1",
        "probe=none",
        "arms.simclr.train.batch_size=32",
        "arms.deacl.train.batch_size=32",
        "protocol.train.batch_size=32",
        status=2,
    )
    assert "07.png" in printed.strip().splitlines()[-1]
    assert time.monotonic() - begin < 200
