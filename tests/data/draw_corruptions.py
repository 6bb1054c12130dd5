"""The picture and the table of constants of docs/corruptions.md.

    python -m tests.data.draw_corruptions IMAGE docs/corruptions.png docs/corruptions.md

IMAGE is an image file of CIFAR-10, such as data/cifar10/test/horse/0004.jpg. The
picture has a row for each kind: the image, and severities 1 to 5.
"""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from rrl_dist.data.corruptions import (
    SEVERITIES,
    corrupt,
    corruption_names,
    found_kinds,
)
from rrl_dist.data.folder import read_image

SIDE, TIMES, MARGIN = 32, 2, 120  # pixels of the image, of which each becomes 2 x 2
TABLE = re.compile(r"(<!-- constants -->\n).*?(<!-- end -->)", re.S)


def corrupted(x: Tensor, name: str) -> list[Tensor]:
    """[3, H, W] in [0, 1] -> itself, and at each severity."""
    index = torch.tensor([0])
    found = [corrupt(x[None], name, s, seed=0, index=index)[0] for s in SEVERITIES]
    return [x, *found]


def picture(x: Tensor) -> Image.Image:
    """A row for each kind, its name at the left."""
    names = corruption_names()
    side = SIDE * TIMES
    page = Image.new("RGB", (MARGIN + 6 * side, len(names) * side), "white")
    for row, name in enumerate(names):
        told = name.replace("_", " ")
        ImageDraw.Draw(page).text((6, row * side + side // 2 - 6), told, fill="black")
        for column, image in enumerate(corrupted(x, name)):
            pixels = image.mul(255).round().byte().permute(1, 2, 0).numpy()
            small = Image.fromarray(np.ascontiguousarray(pixels))
            large = small.resize((side, side), Image.Resampling.NEAREST)
            page.paste(large, (MARGIN + column * side, row * side))
    return page


def table() -> str:
    """The constants, of the files that have them."""
    lines = ["| kind | of up to 64 px | of larger images |", "| :-- | :-- | :-- |"]
    for name, kind in found_kinds().items():
        both = " | ".join(_told(values) for values in (kind.small, kind.large))
        mark = " (validation)" if kind.role == "validation" else ""
        lines.append(f"| `{name}`{mark} | {both} |")
    return "\n".join(lines) + "\n"


def _told(values: tuple[Any, ...]) -> str:
    if not isinstance(values[0], tuple):
        return ", ".join(map(str, values))
    return "; ".join(" ".join(map(str, each)) for each in values)


def main(image: str, png: str, page: str) -> None:
    """Write both."""
    x = torch.from_numpy(read_image(Path(image), size=SIDE)).permute(2, 0, 1)
    picture(x.float() / 255).save(png, optimize=True)
    text = Path(page).read_text()
    Path(page).write_text(TABLE.sub(lambda found: found[1] + table() + found[2], text))


if __name__ == "__main__":
    main(*sys.argv[1:])
