"""Common corruptions of test images, at five severities.

Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions
and Perturbations, ICLR 2019, arXiv:1903.12261. Kinds and constants are those of the
authors' generators, github.com/hendrycks/robustness: make_cifar_c.py for images of up
to `SMALL` pixels, corruptions.py of ImageNet-C for larger ones. Fifteen kinds are for
testing, the others for validation. docs/corruptions.md shows them, and tells what is
otherwise than in the published sets, which were drawn without a seed.

A further kind is a file in `rrl_dist/data/corruptions/kinds`.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache

import torch
from torch import Tensor

from rrl_dist.core.errors import UserError
from rrl_dist.core.randomness import uniform
from rrl_dist.data.corruptions import kinds
from rrl_dist.data.corruptions.kind import Given, Kind, levels
from rrl_dist.data.corruptions.textures import textures

SEVERITIES = (1, 2, 3, 4, 5)
SMALL = 64  # pixels of the shorter side up to which the constants of CIFAR-10-C hold


@cache
def found_kinds() -> Mapping[str, Kind]:
    """By name, in the order of the authors' tables: those of the files in
    `rrl_dist/data/corruptions/kinds`."""
    names = sorted(module.name for module in pkgutil.iter_modules(kinds.__path__))
    found = {n: importlib.import_module(f"{kinds.__name__}.{n}").KIND for n in names}
    return dict(sorted(found.items(), key=lambda item: item[1].place))


def corrupt(
    x: Tensor,
    name: str,
    severity: int,
    *,
    seed: int,
    index: Tensor,
    frost: str | None = None,
) -> Tensor:
    """Images as they would come from an 8-bit file of a corrupted test set.

    A sample's result is a function of (image, name, severity, seed, its index): not of
    the batch it is in nor of its place there. No operation sums over the batch, and all
    is done in double precision: the last bits of a logarithm or a cosine, which may
    depend on an element's place in memory, are far below a step of 1/255.

    Args:
        x: [N, 3, H, W] float in [0, 1]; brought to multiples of 1/255 first, as the
            published sets are made from 8-bit images.
        name: one of `corruption_names()`.
        severity: 1 (mild) to 5.
        seed: of the draws, with the name and the severity.
        index: [N] int64, the samples; draws belong to them.
        frost: a folder of textures of frost; None to make them up.

    Returns:
        [N, 3, H, W] of x's type, multiples of 1/255 in [0, 1].

    Raises:
        UserError: there is no such corruption or severity, or no texture.
    """
    check_corruption(name, severity)
    kind, small = found_kinds()[name], is_small(x.shape)
    constants = kind.small if small else kind.large

    def draw(n: int) -> Tensor:
        u = uniform(seed, "corruption", name, severity, index=index, n=n)
        # Multiples of 2**-24 moved by half a step: 0 would be an infinite quantile.
        return u.double() + 2.0**-25

    ice = () if frost is None or name != "frost" else textures(frost)
    given = Given(draw, small, ice)
    y = kind.apply(levels(x).double() / 255, constants[severity - 1], given)
    # The last division in x's type gives what a loader of 8-bit files gives.
    return y.clamp(0, 1).mul(255).round().to(x.dtype) / 255


def is_small(shape: torch.Size) -> bool:
    """Whether images of [..., H, W] have the constants of CIFAR-10-C."""
    return min(shape[-2:]) <= SMALL


def corruption_names(role: str | None = None) -> tuple[str, ...]:
    """The corruptions there are, in the order of the authors' tables.

    Args:
        role: "test" for the fifteen, "validation" for the others, None for all.
    """
    return tuple(n for n, kind in found_kinds().items() if role in (None, kind.role))


def check_corruption(name: str, severity: int) -> None:
    """Raises `UserError` for a corruption or a severity that there is not."""
    if name not in found_kinds():
        known = "|".join(corruption_names())
        raise UserError(f"there is no corruption {name!r}; choose {known}")
    if severity not in SEVERITIES:
        raise UserError(
            f"corruption {name} has severities {SEVERITIES[0]} to {SEVERITIES[-1]}, "
            f"not {severity}; choose one of them"
        )
