"""Errors on corrupted images: what a suite asks for, and the means of its rows.

Hendrycks and Dietterich 2019, arXiv:1903.12261: kinds of corruption, each at several
severities. The images are made here from the test images, not read from the published
files, and errors are not divided by another network's: means of such errors are
comparable with one another, and with published ones only roughly.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from rrl_dist.core.aggregate import mean_of, rounded, wilson
from rrl_dist.core.columns import Columns
from rrl_dist.core.errors import UserError
from rrl_dist.data.corruptions import check_corruption, corrupt

KEYS = ("kinds", "severities")


@dataclass(frozen=True)
class Corruption:
    """One kind at one severity.

    Attributes:
        corruption: its kind, such as "gaussian_noise".
        severity: 1, the weakest, to 5.
    """

    corruption: str
    severity: int

    def __call__(self, x: Tensor, *, seed: int, index: Tensor) -> Tensor:
        """x: [N, 3, H, W] in [0, 1], index: [N] -> the corrupted images."""
        return corrupt(x, self.corruption, self.severity, seed=seed, index=index)

    @property
    def name(self) -> str:
        """Of its component, such as "gaussian_noise@3"."""
        return f"{self.corruption}@{self.severity}"


def corruptions_of(config: Mapping[str, Any] | None) -> dict[str, Corruption]:
    """By name of the component, kind by kind; none where the suite has none.

    Args:
        config: `kinds` and `severities`, or None.

    Raises:
        UserError: a kind or a severity that there is not, or none at all.
    """
    if config is None:
        return {}
    _check_keys(config)
    found = {}
    for kind in config["kinds"]:
        for severity in config["severities"]:
            check_corruption(kind, severity)
            each = Corruption(kind, int(severity))
            found[each.name] = each
    return found


def _check_keys(config: Mapping[str, Any]) -> None:
    for key in KEYS:
        if not isinstance(config.get(key), list | tuple) or not config[key]:
            raise UserError(
                f"suite.corruptions.{key}={config.get(key)}; give a list of at least "
                "one, or set suite.corruptions=null"
            )
    for key in config:
        if key not in KEYS:
            raise UserError(
                f"suite.corruptions has no {key}; it has {' and '.join(KEYS)}"
            )


def corruption_errors(
    components: Mapping[str, Columns], corruptions: Mapping[str, Corruption]
) -> dict[str, Any] | None:
    """What `results.json` holds of them; None where there are none.

    Severities of one image are not independent, so a mean over several of them is one
    of the images' own mean errors, and its interval is over images.

    Args:
        components: by name; each is asked for when it is needed.
        corruptions: by component.
    """
    if not corruptions:
        return None
    kinds: dict[str, dict[int, str]] = {}
    for name, each in corruptions.items():
        kinds.setdefault(each.corruption, {})[each.severity] = name

    def error(names: Iterable[str]) -> dict[str, float | int]:
        return error_of(components[name] for name in names)

    return {
        "generated": "regenerated",
        "error": error(corruptions),
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
