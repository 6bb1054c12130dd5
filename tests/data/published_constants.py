"""The constants of the authors' generators, and each kind's second implementation."""

from typing import Any

from tests.data import slow_corruptions as slow
from tests.data.slow_corruptions import Array, Slow


def elastic_constants(size: int) -> list[tuple[float, float, float]]:
    """As the authors write them, for their sizes."""
    if size <= 64:
        side = size
        return [
            (side * 0, side * 0, side * 0.08),
            (side * 0.05, side * 0.2, side * 0.07),
            (side * 0.08, side * 0.06, side * 0.06),
            (side * 0.1, side * 0.04, side * 0.05),
            (side * 0.1, side * 0.03, side * 0.03),
        ]
    wide = 244 * size / 224
    return [
        (wide * 2, wide * 0.7, wide * 0.1),
        (wide * 2, wide * 0.08, wide * 0.2),
        (wide * 0.05, wide * 0.01, wide * 0.02),
        (wide * 0.07, wide * 0.01, wide * 0.02),
        (wide * 0.12, wide * 0.01, wide * 0.02),
    ]


# With the published constants, of make_cifar_c.py and of ImageNet-C's corruptions.py.
SLOW: dict[str, tuple[Slow, list[Any], list[Any]]] = {
    "gaussian_noise": (
        slow.gaussian_noise,
        [0.04, 0.06, 0.08, 0.09, 0.10],
        [0.08, 0.12, 0.18, 0.26, 0.38],
    ),
    "shot_noise": (slow.shot_noise, [500, 250, 100, 75, 50], [60, 25, 12, 5, 3]),
    "impulse_noise": (
        slow.impulse_noise,
        [0.01, 0.02, 0.03, 0.05, 0.07],
        [0.03, 0.06, 0.09, 0.17, 0.27],
    ),
    "defocus_blur": (
        slow.defocus_blur,
        [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)],
        [(3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)],
    ),
    "glass_blur": (
        slow.glass_blur,
        [(0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)],
        [(0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)],
    ),
    "motion_blur": (
        slow.motion_blur,
        [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)],
        [(10, 3), (15, 5), (15, 8), (15, 12), (20, 15)],
    ),
    "zoom_blur": (
        slow.zoom_blur,
        [(1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)],
        [(1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)],
    ),
    "snow": (
        slow.snow,
        [
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ],
        [
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ],
    ),
    "frost": (
        slow.frost,
        [(1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)],
        [(1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)],
    ),
    "fog": (
        slow.fog,
        [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)],
        [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)],
    ),
    "brightness": (
        slow.brightness,
        [0.05, 0.1, 0.15, 0.2, 0.3],
        [0.1, 0.2, 0.3, 0.4, 0.5],
    ),
    "contrast": (
        slow.contrast,
        [0.75, 0.5, 0.4, 0.3, 0.15],
        [0.4, 0.3, 0.2, 0.1, 0.05],
    ),
    "elastic_transform": (slow.elastic_transform, [], []),
    "pixelate": (
        slow.pixelate,
        [0.95, 0.9, 0.85, 0.75, 0.65],
        [0.6, 0.5, 0.4, 0.3, 0.25],
    ),
    "jpeg_compression": (
        slow.jpeg_compression,
        [80, 65, 58, 50, 40],
        [25, 18, 15, 10, 7],
    ),
    "speckle_noise": (
        slow.speckle_noise,
        [0.06, 0.1, 0.12, 0.16, 0.2],
        [0.15, 0.2, 0.35, 0.45, 0.6],
    ),
    "gaussian_blur": (slow.gaussian_blur, [0.4, 0.6, 0.7, 0.8, 1], [1, 2, 3, 4, 6]),
    "spatter": (
        slow.spatter,
        [
            (0.62, 0.1, 0.7, 0.7, 0.5, 0),
            (0.65, 0.1, 0.8, 0.7, 0.5, 0),
            (0.65, 0.3, 1, 0.69, 0.5, 0),
            (0.65, 0.1, 0.7, 0.69, 0.6, 1),
            (0.65, 0.1, 0.5, 0.68, 0.6, 1),
        ],
        [
            (0.65, 0.3, 4, 0.69, 0.6, 0),
            (0.65, 0.3, 3, 0.68, 0.6, 0),
            (0.65, 0.3, 2, 0.68, 0.5, 0),
            (0.65, 0.3, 1, 0.65, 1.5, 1),
            (0.67, 0.4, 1, 0.65, 1.5, 1),
        ],
    ),
    "saturate": (
        slow.saturate,
        [(0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)],
        [(0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)],
    ),
}


def slow_corruption(x: Array, name: str, severity: int, index: int) -> Array:
    """What `corrupt` gives of one image, in [0, 255], not rounded."""
    change, small, large = SLOW[name]
    constants = small if x.shape[0] <= 64 else large
    if name == "elastic_transform":
        constants = elastic_constants(x.shape[0])
    return change(x, constants[severity - 1], name, severity, index).clip(0, 1) * 255
