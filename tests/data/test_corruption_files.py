"""Corruptions and files: JPEG's standard, textures of frost, the page of constants."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from rrl_dist.core.errors import UserError
from rrl_dist.data.corruptions import SEVERITIES, corrupt
from rrl_dist.data.corruptions.textures import check_textures
from tests.data.draw_corruptions import TABLE, table
from tests.data.jpeg_by_hand import jpeg
from tests.data.published_constants import SLOW
from tests.data.slow_corruptions import SEED, Array, draws
from tests.data.test_corruptions import LARGE, images


def test_the_page_has_the_constants_that_there_are() -> None:
    """As `python -m tests.data.draw_corruptions` writes them."""
    page = Path(__file__).parents[2] / "docs" / "corruptions.md"
    found = TABLE.search(page.read_text())
    assert found is not None
    assert found[0] == found[1] + table() + found[2]


@pytest.mark.parametrize("size", [64, LARGE])
def test_jpeg_loses_what_its_standard_says(size: int) -> None:
    """Within the rounding of a library's whole-number arithmetic: of a few coefficients
    that lie at half a step, too."""
    x, index = images(2, size), torch.arange(2)
    for severity in SEVERITIES:
        found = corrupt(x, "jpeg_compression", severity, seed=0, index=index)
        quality = SLOW["jpeg_compression"][1 if size <= 64 else 2][severity - 1]
        for row, own in zip(found, x, strict=True):
            pixels = own.double().mul(255).round().permute(1, 2, 0).numpy()
            levels = row.double().mul(255).round().permute(1, 2, 0).numpy()
            apart = np.abs(levels - jpeg(pixels, quality))
            moved = np.abs(levels - pixels)
            assert float(apart.mean()) < 0.15 * float(moved.mean())


def texture(folder: Path, name: str, grey: int, side: int) -> Array:
    """An image file whose pixels tell where they are; returns it, [H, W, 3]."""
    rows, columns = np.indices((side, side + 7))
    pixels = np.stack([rows % 251, columns % 241, np.full_like(rows, grey)], 2)
    Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
    return pixels.astype(np.uint8)


@pytest.mark.parametrize("size", [16, LARGE])
def test_frost_is_cut_out_of_the_textures_given(tmp_path: Path, size: int) -> None:
    """Any window of any texture; of small images every fifth pixel, as the authors
    shrink theirs. Which one is a function of the sample."""
    names = ("b.png", "a.png")
    kept = {n: texture(tmp_path, n, i, 190) for i, n in enumerate(names)}
    check_textures(str(tmp_path), size, small=size == 16)
    x, index = torch.zeros(12, 3, size, size), torch.arange(12)
    own = {16: 0.45, LARGE: 0.75}[size]
    found = corrupt(x, "frost", 5, seed=SEED, index=index, frost=str(tmp_path))
    windows = set()
    for row, sample in zip(found, range(12), strict=True):
        u = draws("frost", 5, sample, 3)
        pixels = kept[sorted(names)[int(u[0] * 2)]]
        if size == 16:
            pixels = pixels[2::5, 2::5]
        top, left = (int(u[1 + i] * (pixels.shape[i] - size)) for i in (0, 1))
        part = own * pixels[top : top + size, left : left + size].astype(float)
        levels = row.double().mul(255).permute(1, 2, 0).numpy()
        assert float(np.abs(levels - part).max()) <= 0.5 + 1e-4
        windows.add((int(u[0] * 2), top, left))
    assert len(windows) > 9
    one = corrupt(x[:1], "frost", 5, seed=SEED, index=index[:1], frost=str(tmp_path))
    assert torch.equal(one[0], found[0])


def test_textures_that_cannot_be_used_are_told_of(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no image files; give a folder"):
        check_textures(str(tmp_path), 32, small=True)
    texture(tmp_path, "ice.png", 0, 100)
    with pytest.raises(UserError, match=r"107 x 100 px, .* need at least 160; remove"):
        check_textures(str(tmp_path), 32, small=True)
    check_textures(str(tmp_path), 100, small=False)
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "ice.jpg").write_text("no image")
    with pytest.raises(UserError, match=r"ice.jpg is no image that can be read"):
        check_textures(str(empty), 32, small=True)
