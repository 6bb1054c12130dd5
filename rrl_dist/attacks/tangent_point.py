"""Where a line from an image touches a ball around a point of the decision boundary.

Ma, Guo, Chen, Yong, Wang 2021 (NeurIPS), "Finding Optimal Tangent Points for Reducing
Distortions of Hard-label Attacks", hemisphere form. The boundary near the point is
taken for a hyperplane; of all points of the half ball behind it, the line to the
tangent point meets the hyperplane nearest to the image. That point lies in the plane
that the hyperplane's normal spans with the way to the image, so no search is needed.
"""

import torch
from torch import Tensor


def largest_radius(x: Tensor, point: Tensor, normal: Tensor) -> Tensor:
    """Up to which the tangent point lies behind the hyperplane: at this radius it is
    the foot of the perpendicular from the image, which nothing on the plane is nearer
    to.

    Args:
        x: [M, D] images.
        point: [M, D] of the boundary.
        normal: [M, D] unit normals of the hyperplane, towards wrong images.

    Returns:
        [M] lengths >= 0.
    """
    way = x - point
    return (_dot(way, way) - _dot(way, normal).square()).clamp_min(0).sqrt()


def tangent_point(x: Tensor, point: Tensor, normal: Tensor, radius: Tensor) -> Tensor:
    """The tangent point on the normal's side.

    Args:
        x, point, normal: see `largest_radius`.
        radius: [M] of the balls around `point`; x is not inside them.

    Returns:
        [M, D], anywhere; they are not clipped to [0, 1].
    """
    way = x - point
    tiny = torch.finfo(way.dtype).tiny
    length = _dot(way, way).sqrt().clamp_min(tiny)
    towards = way / length[:, None]
    across = normal - _dot(normal, towards)[:, None] * towards
    across = across / _dot(across, across).sqrt().clamp_min(tiny)[:, None]
    # Of the angle at `point` between the image and the tangent point.
    cos = (radius / length).clamp_max(1)
    sin = (1 - cos.square()).sqrt()
    return point + radius[:, None] * (cos[:, None] * towards + sin[:, None] * across)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """[M, D], [M, D] -> [M]."""
    return (a * b).sum(1)
