"""A `.beton` file is used only as it was read back and compared."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from rrl_dist.core.errors import UserError
from rrl_dist.data.datasets import ImageSet
from rrl_dist.data.prepare import prepare_beton

pytestmark = pytest.mark.slow
pytest.importorskip("ffcv", reason="FFCV is not installed")


def count(total: int) -> Callable[[int], None]:
    return lambda advance: None


def test_a_file_damaged_later_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
    labels, index = np.arange(40) % 3, np.arange(40)
    images = ImageSet("noise", pixels, labels, index, ("a", "b", "c"))
    news: list[str] = []
    prepare = partial(
        prepare_beton,
        tmp_path,
        images,
        workers=1,
        progress=count,
        notify=news.append,
        encoder=lambda images, quality: pytest.fail("these are decoded already"),
    )
    path = prepare()
    here = "noise is in memory: it is written here, without tasks"
    assert news == [here]
    news.clear()
    whole, written = path.read_bytes(), path.stat().st_mtime_ns
    assert prepare() == path
    assert news == []
    assert path.stat().st_mtime_ns == written, "a whole file is left alone"
    damaged = bytearray(whole)
    place = whole.find(pixels[7].tobytes())
    assert place > 0
    damaged[place] ^= 0xFF
    path.write_bytes(bytes(damaged))
    prepare()
    assert path.read_bytes() == whole

    def writer(*given: object, **more: object) -> None:  # FFCV's takes its time
        path.write_bytes(whole)

    monkeypatch.setattr("rrl_dist.data.prepare.write_beton", writer)
    # Not this set's, whatever its name says; and one whose seal is gone.
    path.write_bytes(b"text")
    prepare()
    path.with_suffix(".json").unlink()
    prepare()
    assert path.read_bytes() == whole
    said = ("is damaged: its hash has changed", "is cut short", "has no seal in")
    assert news[1::2] == [here] * 3
    for line, what in zip(news[::2], said, strict=True):
        assert line.startswith(f"{path} {what}")
        assert line.endswith("; writing it again")
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="is a folder where a file is wanted"):
        prepare()
