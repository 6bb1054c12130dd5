"""Errors on corrupted images: what a suite asks for, and the means of its rows.

Hendrycks and Dietterich 2019, arXiv:1903.12261: kinds of corruption, each at several
severities. The images are read from the published files where their folder is given,
else made here from the test images; results say which. Means of the two are comparable
only roughly.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rrl_dist.core.aggregate import mean_of, rounded, wilson
from rrl_dist.core.columns import Columns
from rrl_dist.core.errors import UserError
from rrl_dist.data.corruptions import (
    SEVERITIES,
    check_corruption,
    corrupt,
    corruption_names,
)
from rrl_dist.data.published import Published

KEYS = ("kinds", "severities")
PERHAPS = ("folder", "frost")
# AlexNet's errors, means over severities: augmix's imagenet.py (arXiv:1912.02781), of
# the fifteen kinds for testing in the order of the authors' tables.
ALEXNET = (
    *(0.886428, 0.894468, 0.922640, 0.819880, 0.826268, 0.785948, 0.798360, 0.866816),
    *(0.826572, 0.819324, 0.564592, 0.853204, 0.646056, 0.717840, 0.606500),
)
_WNID = re.compile(r"n\d{8}")


@dataclass(frozen=True)
class Corruption:
    """One kind at one severity.

    Attributes:
        corruption: its kind, such as "gaussian_noise".
        severity: 1, the weakest, to 5.
        published: the files that it is read from; None where images are made.
        frost: a folder of textures for those; None to make them up.
    """

    corruption: str
    severity: int
    published: Published | None = None
    frost: str | None = None

    def __call__(self, x: Tensor, *, seed: int, index: Tensor) -> Tensor:
        """x: [N, 3, H, W] in [0, 1], index: [N] -> the corrupted images."""
        if self.published is None:
            ice = self.frost
            kind, severity = self.corruption, self.severity
            return corrupt(x, kind, severity, seed=seed, index=index, frost=ice)
        places = index.cpu().numpy()
        size = x.shape[-1]
        read = self.published.images(self.corruption, self.severity, places, size=size)
        y = torch.from_numpy(read).permute(0, 3, 1, 2).contiguous()
        return y.to(x.device, x.dtype) / 255

    @property
    def name(self) -> str:
        """Of its component, such as "gaussian_noise@3"."""
        return f"{self.corruption}@{self.severity}"

    @property
    def columns(self) -> dict[str, Any]:
        """What rows hold of it."""
        return {"corruption": self.corruption, "severity": self.severity}


def corruptions_of(config: Mapping[str, Any] | None) -> dict[str, Corruption]:
    """By name of the component, kind by kind; none where the suite has none.

    Args:
        config: `kinds` and `severities`, perhaps `folder` of published files and
            `frost`, a folder of textures; or None.

    Raises:
        UserError: a kind, a severity or a folder that there is not, or none at all.
    """
    if config is None:
        return {}
    _check_keys(config)
    folder, frost = config.get("folder"), config.get("frost")
    published = None if folder is None else Published(str(folder))
    ice = None if frost is None else str(frost)
    found = {}
    for kind in config["kinds"]:
        for severity in config["severities"]:
            check_corruption(kind, severity)
            own = ice if kind == "frost" and published is None else None
            each = Corruption(kind, int(severity), published, own)
            found[each.name] = each
    if published is not None:
        published.check(config["kinds"], config["severities"])
    return found


def _check_keys(config: Mapping[str, Any]) -> None:
    for key in KEYS:
        if not isinstance(config.get(key), list | tuple) or not config[key]:
            raise UserError(
                f"suite.corruptions.{key}={config.get(key)}; give a list of at least "
                "one, or set suite.corruptions=null"
            )
    for key in config:
        if key not in (*KEYS, *PERHAPS):
            raise UserError(
                f"suite.corruptions has no {key}; it has {' and '.join(KEYS)}, and "
                f"perhaps {' and '.join(PERHAPS)}"
            )


def corruption_errors(
    components: Mapping[str, Columns],
    corruptions: Mapping[str, Corruption],
    imagenet: bool = False,
) -> dict[str, Any] | None:
    """What `results.json` holds of them; None where there are none.

    Severities of one image are not independent, so a mean over several of them is one
    of the images' own mean errors, and its interval is over images.

    Args:
        components: by name; each is asked for when it is needed.
        corruptions: by component.
        imagenet: whether the classes are ImageNet's thousand.
    """
    if not corruptions:
        return None
    kinds: dict[str, dict[int, str]] = {}
    for name, each in corruptions.items():
        kinds.setdefault(each.corruption, {})[each.severity] = name

    def error(names: Iterable[str]) -> dict[str, float | int]:
        return error_of(components[name] for name in names)

    validation = corruption_names("validation")
    held_out = [n for n, each in corruptions.items() if each.corruption in validation]
    return {
        **labels_of(corruptions),
        "error": error(corruptions),
        "mce": _mean_corruption_error(components, kinds, imagenet),
        "validation": error(held_out) if held_out else None,
        "kinds": {
            kind: {
                "error": error(levels.values()),
                "severities": {
                    str(severity): error([name]) for severity, name in levels.items()
                },
            }
            for kind, levels in kinds.items()
        },
    }


def labels_of(corruptions: Mapping[str, Corruption]) -> dict[str, str | None]:
    """Where the images come from, and the frost on them."""
    first = next(iter(corruptions.values()))
    if first.published is not None:
        return {"generated": "published", "frost": None}
    ice = [each for each in corruptions.values() if each.corruption == "frost"]
    frost = None
    if ice:
        frost = "synthetic frost" if ice[0].frost is None else "textures"
    return {"generated": "regenerated", "frost": frost}


def is_imagenet(classes: Sequence[str]) -> bool:
    """Whether these are the names of ImageNet's thousand classes."""
    return len(classes) == 1000 and all(map(_WNID.fullmatch, classes))


def _mean_corruption_error(
    components: Mapping[str, Columns],
    kinds: Mapping[str, Mapping[int, str]],
    imagenet: bool,
) -> dict[str, Any] | None:
    """In both conventions, over the kinds for testing alone; None unless all of them
    were asked for at all severities."""
    names = corruption_names("test")
    if any({*kinds.get(name, ())} != {*SEVERITIES} for name in names):
        return None
    whole = [kinds[name][severity] for name in names for severity in SEVERITIES]
    found = {"cifar_c": error_of(components[n] for n in whole), "imagenet_c": None}
    if imagenet:
        weights = [1 / error for error in ALEXNET for _ in SEVERITIES]
        pairs = zip(whole, weights, strict=True)
        found["imagenet_c"] = weighted((components[n], w) for n, w in pairs)
    return found


def weighted(parts: Iterable[tuple[Columns, float]]) -> dict[str, float | int]:
    """Mean over images of the weighted mean of their errors, which may be above 1; the
    interval is over images.

    Args:
        parts: components of the same images, each with its weight.
    """
    total: NDArray[np.float64] = np.zeros(0)
    count = 0
    for columns, weight in parts:
        flags = weight * (~columns.correct).astype(np.float64)
        total, count = flags if count == 0 else total + flags, count + 1
    return mean_of((total / count).tolist()).as_dict()


def error_of(components: Iterable[Columns]) -> dict[str, float | int]:
    """Mean over images of the share of components that they are wrong in.

    The interval is Wilson's where an image is wrong in all or in none, as it is in one
    component; else the normal one, cut at 0 and 1.

    Args:
        components: of the same images, which are read one after another.
    """
    wrong, count = np.zeros(0, dtype=np.int64), 0
    for columns in components:
        flags = (~columns.correct).astype(np.int64)
        wrong, count = flags if count == 0 else wrong + flags, count + 1
    if bool(np.isin(wrong, (0, count)).all()):
        return wilson(int((wrong == count).sum()), len(wrong)).as_dict()
    mean = mean_of((wrong / count).tolist()).as_dict()
    return {
        **mean,
        "low": rounded(max(mean["low"], 0.0)),
        "high": rounded(min(mean["high"], 1.0)),
    }
