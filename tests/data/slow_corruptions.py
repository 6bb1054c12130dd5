"""Second implementations of the corruptions, of one image [H, W, 3] in [0, 1].

As the authors' generators have them, but for the draws, which are given.

Loops, numpy, scipy, Pillow and colorsys; nothing of the package but its uniform draws.
"""

import colorsys
import importlib
import math
from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import torch
from PIL import Image
from scipy import ndimage, stats

from rrl_dist.core.randomness import uniform

SEED = 3
Array = np.ndarray[Any, np.dtype[np.float64]]
Slow = Callable[[Array, Any, str, int, int], Array]


def draws(name: str, severity: int, index: int, n: int) -> Array:
    """One sample's, in (0, 1)."""
    u = uniform(SEED, "corruption", name, severity, index=torch.tensor([index]), n=n)
    return u[0].double().numpy() + 2.0**-25


def normals(u: Array) -> Array:
    """Of two draws each: the first half's and the second half's."""
    half = len(u) // 2
    pairs = zip(u[:half], u[half:], strict=True)
    return np.array(
        [math.sqrt(-2 * math.log(a)) * math.cos(2 * math.pi * b) for a, b in pairs]
    )


def channels_last(values: Array, x: Array) -> Array:
    height, width, channels = x.shape
    return values.reshape(channels, height, width).transpose(1, 2, 0)


def by_channel(x: Array, change: Callable[[Array], Array]) -> Array:
    return np.stack([change(x[..., c]) for c in range(x.shape[2])], 2)


def gaussian_noise(x: Array, constant: Any, name: str, s: int, index: int) -> Array:
    z = normals(draws(name, s, index, 2 * x.size))
    return x + constant * channels_last(z, x)


def shot_noise(x: Array, constant: Any, name: str, s: int, index: int) -> Array:
    u = channels_last(draws(name, s, index, x.size), x)
    return np.asarray(stats.poisson.ppf(u, x * constant)) / constant


def impulse_noise(x: Array, constant: Any, name: str, s: int, index: int) -> Array:
    u = channels_last(draws(name, s, index, x.size), x)
    y = x.copy()
    y[u < constant] = 1
    y[u < constant / 2] = 0
    return y


def speckle_noise(x: Array, constant: Any, name: str, s: int, index: int) -> Array:
    z = normals(draws(name, s, index, 2 * x.size))
    return x + x * constant * channels_last(z, x)


def defocus_blur(x: Array, constant: Any, name: str, s: int, index: int) -> Array:
    kernel = disk(*constant)
    return by_channel(x, lambda c: ndimage.correlate(c, kernel, mode="mirror"))


def disk(radius: float, smoothing: float) -> Array:
    side, half = (8, 1) if radius <= 8 else (int(radius), 2)
    rows = range(-side, side + 1)
    found = np.array([[float(i * i + j * j <= radius**2) for j in rows] for i in rows])
    taps = np.array(
        [math.exp(-((i / smoothing) ** 2) / 2) for i in range(-half, half + 1)]
    )
    taps /= taps.sum()
    return ndimage.correlate(found / found.sum(), np.outer(taps, taps), mode="mirror")


def blurred(x: Array, sigma: float) -> Array:
    return by_channel(
        x, lambda c: ndimage.gaussian_filter(c, sigma, mode="nearest", truncate=4.0)
    )


def gaussian_blur(x: Array, constant: Any, name: str, s: int, index: int) -> Array:
    return blurred(x, constant)


def glass_blur(x: Array, constant: Any, name: str, s: int, index: int) -> Array:
    """With the authors' swap of views, which copies."""
    sigma, reach, rounds = constant
    y = np.rint(blurred(x, sigma) * 255) / 255
    height, width = x.shape[:2]
    u = draws(name, s, index, 2 * rounds * height * width)
    shifts = np.floor(u * 2 * reach).astype(int) - reach
    shifts = shifts.reshape(rounds, 2, height, width)
    for down, right in shifts:
        for h in range(height - reach, reach, -1):
            for w in range(width - reach, reach, -1):
                other = h + down[h, w], w + right[h, w]
                y[h, w], y[other] = y[other], y[h, w]
    return blurred(y, sigma)


def along_line(x: Array, angle: float, radius: int, sigma: float) -> Array:
    """Pixel by pixel, with the border's pixels repeated."""
    width = 2 * radius + 1
    kernel = [math.exp(-i * i / (2 * sigma * sigma)) for i in range(width)]
    right = width * math.cos(math.radians(angle))
    down = width * math.sin(math.radians(angle))
    y = np.zeros_like(x)
    for i, weight in enumerate(kernel):
        dx = math.ceil(i * right / math.hypot(right, down) - 0.5)
        dy = math.ceil(i * down / math.hypot(right, down) - 0.5)
        for r in range(x.shape[0]):
            row = x[min(max(r + dy, 0), x.shape[0] - 1)]
            columns = np.clip(np.arange(x.shape[1]) + dx, 0, x.shape[1] - 1)
            y[r] += weight / sum(kernel) * row[columns]
    return y


def motion_blur(x: Array, constant: Any, name: str, s: int, index: int) -> Array:
    angle = -45 + 90 * float(draws(name, s, index, 1)[0])
    return along_line(x, angle, *constant)


def clipped_zoom(x: Array, factor: float) -> Array:
    """Of a square image."""
    side = x.shape[0]
    kept = math.ceil(side / factor)
    top = (side - kept) // 2
    part = x[top : top + kept, top : top + kept]
    big = ndimage.zoom(part, (factor, factor, 1), order=1)
    trim = (big.shape[0] - side) // 2
    return np.asarray(big[trim : trim + side, trim : trim + side])


def zoom_blur(x: Array, constant: Any, name: str, s: int, index: int) -> Array:
    factors = np.arange(1, *constant)
    total = sum(clipped_zoom(x, factor) for factor in factors)
    return (x + total) / (len(factors) + 1)


def snow(x: Array, constant: Any, name: str, s: int, index: int) -> Array:
    mean, std, size, least, radius, sigma, kept = constant
    height, width = x.shape[:2]
    u = draws(name, s, index, 2 * height * width + 1)
    layer = (mean + std * normals(u[1:])).reshape(height, width, 1)
    layer = clipped_zoom(layer, size)
    layer[layer < least] = 0
    layer = along_line(layer.clip(0, 1), -135 + 90 * u[0], radius, sigma)
    grey = x @ np.array([0.299, 0.587, 0.114])
    pale = np.maximum(x, grey[..., None] * 1.5 + 0.5)
    return kept * x + (1 - kept) * pale + layer + np.rot90(layer, 2)


def landscape(u: Array, side: int, decay: float) -> Array:
    """Diamond-square on a torus, point by point."""
    land, reach, step = np.zeros((side, side)), 1.0, side
    rest = iter(u)

    def set_all(rows: range, columns: range, near: list[tuple[int, int]]) -> None:
        for r in rows:
            for c in columns:
                four = [land[(r + i) % side, (c + j) % side] for i, j in near]
                land[r, c] = sum(four) / 4 + reach * (2 * next(rest) - 1)

    while step >= 2:
        h = step // 2
        odd, even = range(h, side, step), range(0, side, step)
        beside = [(-h, 0), (h, 0), (0, -h), (0, h)]
        set_all(odd, odd, [(-h, -h), (-h, h), (h, -h), (h, h)])
        set_all(even, odd, beside)
        set_all(odd, even, beside)
        step, reach = h, reach / decay**2
    return np.asarray((land - land.min()) / (land.max() - land.min()))


def power(size: int) -> int:
    return next(2**n for n in range(1, 20) if 2**n >= size)


def fog(x: Array, constant: Any, name: str, s: int, index: int) -> Array:
    side, size = power(x.shape[0]), x.shape[0]
    banks = landscape(draws(name, s, index, side * side - 1), side, constant[1])
    most = x.max()
    y = x + constant[0] * banks[:size, :size, None]
    return np.asarray(y * most / (most + constant[0]))


def frost(x: Array, constant: Any, name: str, s: int, index: int) -> Array:
    """Of made-up ice."""
    side, size = power(x.shape[0]), x.shape[0]
    u = draws(name, s, index, 2 * (side * side - 1))
    rough = landscape(u[: len(u) // 2], side, 1.4)[:size, :size]
    smooth = landscape(u[len(u) // 2 :], side, 1.8)[:size, :size]
    ice = 0.2 + 0.4 * smooth + 0.4 * (1 - abs(2 * rough - 1)) ** 3
    colour = np.array([0.82, 0.92, 1.0])
    return np.asarray(constant[0] * x + constant[1] * ice[..., None] * colour)


def in_hsv(x: Array, change: Callable[[float, float, float], Any]) -> Array:
    colours = [
        colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*map(float, pixel))))
        for pixel in x.reshape(-1, 3)
    ]
    return np.array(colours).reshape(x.shape)


def brightness(x: Array, constant: Any, name: str, s: int, index: int) -> Array:
    return in_hsv(x, lambda h, c, v: (h, c, min(v + constant, 1)))


def saturate(x: Array, constant: Any, name: str, s: int, index: int) -> Array:
    times, more = constant
    return in_hsv(x, lambda h, c, v: (h, min(max(c * times + more, 0), 1), v))


def contrast(x: Array, constant: Any, name: str, s: int, index: int) -> Array:
    means = x.mean(axis=(0, 1), keepdims=True)
    return (x - means) * constant + means


def elastic_transform(x: Array, constant: Any, name: str, s: int, index: int) -> Array:
    """constant: in pixels."""
    strength, sigma, corner = constant
    size = x.shape[0]
    u = 2 * draws(name, s, index, 6 + 2 * size * size) - 1
    middle, half = size // 2, size // 3
    start = np.array([[1, 1], [1, -1], [-1, -1]]) * half + middle
    ends = start + corner * u[:6].reshape(3, 2)
    matrix = np.linalg.solve(np.c_[start, np.ones(3)], ends)  # [3, 2]
    back = np.linalg.inv(matrix[:2])
    places = np.stack(np.meshgrid(np.arange(size), np.arange(size)), 2)  # x, y
    from_ = (places - matrix[2]) @ back
    at = from_[..., ::-1].transpose(2, 0, 1)
    y = by_channel(x, lambda c: ndimage.map_coordinates(c, at, order=1, mode="mirror"))
    fields = u[6:].reshape(2, size, size)
    right, down = (
        strength * ndimage.gaussian_filter(f, sigma, mode="reflect", truncate=3.0)
        for f in fields
    )
    at = np.stack([places[..., 1] + down, places[..., 0] + right])
    return by_channel(
        y, lambda c: ndimage.map_coordinates(c, at, order=1, mode="reflect")
    )


def as_image(x: Array) -> Image.Image:
    return Image.fromarray(np.rint(x * 255).astype(np.uint8))


def pixelate(x: Array, constant: Any, name: str, s: int, index: int) -> Array:
    few = int(x.shape[0] * constant)
    small = as_image(x).resize((few, few), Image.Resampling.BOX)
    size = x.shape[1], x.shape[0]
    return np.asarray(small.resize(size, Image.Resampling.BOX)) / 255


def jpeg_compression(x: Array, constant: Any, name: str, s: int, index: int) -> Array:
    file = BytesIO()
    as_image(x).save(file, "JPEG", quality=constant)
    return np.asarray(Image.open(file)) / 255


def spatter(x: Array, constant: Any, name: str, s: int, index: int) -> Array:
    """By OpenCV itself."""
    cv2: Any = importlib.import_module("cv2")
    mean, std, sigma, least, strength, mud = constant
    height, width = x.shape[:2]
    u = draws(name, s, index, 2 * height * width)
    noise = (mean + std * normals(u)).reshape(height, width)
    liquid = ndimage.gaussian_filter(noise, sigma, mode="nearest", truncate=4.0)
    liquid[liquid < least] = 0
    if mud:
        cover = np.where(liquid > least, 1.0, 0.0)
        cover = ndimage.gaussian_filter(cover, strength, mode="nearest", truncate=4.0)
        cover[cover < 0.8] = 0
        brown = np.array([63, 42, 20]) / 255
        return np.asarray(x * (1 - cover[..., None]) + cover[..., None] * brown)
    drops = (liquid * 255).astype(np.uint8)
    far = cv2.distanceTransform(255 - cv2.Canny(drops, 50, 150), cv2.DIST_L2, 5)
    _, far = cv2.threshold(far, 20, 20, cv2.THRESH_TRUNC)
    far = cv2.equalizeHist(cv2.blur(far, (3, 3)).astype(np.uint8))
    shade = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    light = cv2.blur(cv2.filter2D(far, cv2.CV_8U, shade), (3, 3)).astype(float)
    light = drops * light
    share = strength * light / max(light.max(), 1)
    return np.asarray(x + share[..., None] * np.array([175, 238, 238]) / 255)
