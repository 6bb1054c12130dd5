"""The bound on the adversarial loss, beside the loss that attacks reach.

Derived in `rrl_dist.objectives.tarrl`. For an image x, its features f(x), a linear head
W h + b and the cross-entropy l in nats,

    l(x') <= l(x) + sqrt(2) ||W||_2 ||f(x') - f(x)||    for each image x'.

R(f) is the mean over images of the largest displacement ||f(x') - f(x)|| in the ball.
Here it is the largest among the images that the attacks have found, which is less; but
the loss is measured on the same images, so it lies under this bound sample by sample.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rrl_dist.core.aggregate import Mean, mean_of, rounded
from rrl_dist.core.columns import Columns

# A clean and an attacked row may come from two devices whose features' last digits
# differ; without that, 1e-9 would do.
ROUNDING = 1e-4


@dataclass(frozen=True)
class Samples:
    """Images at one radius, one value each.

    Attributes:
        index: [N] int64, their places in the data set.
        clean_loss: [N] cross-entropy at the image itself, nats.
        displacement: [N] the largest of the images that attacks have found for it.
        bound: [N] on the cross-entropy, nats.
        loss: [N] the largest cross-entropy of these images and itself, nats.
    """

    index: NDArray[np.int64]
    clean_loss: NDArray[np.float64]
    displacement: NDArray[np.float64]
    bound: NDArray[np.float64]
    loss: NDArray[np.float64]


def samples_at(
    clean: Columns, attacked: Iterable[Columns], *, head_norm: float
) -> Samples:
    """The bound and the loss of each image.

    Args:
        clean: of the clean images.
        attacked: each component at one radius, of the same images, which are read one
            after another.
        head_norm: ||W||_2.

    Raises:
        RuntimeError: a loss above its bound, which can only be an error of ours.
    """
    displacement, loss = _measured(clean), clean.loss
    for columns in attacked:
        if not np.array_equal(columns.index, clean.index):
            raise ValueError("a radius has components of different samples")
        displacement = np.maximum(displacement, _measured(columns))
        loss = np.maximum(loss, columns.loss)
    bound = clean.loss + math.sqrt(2) * head_norm * displacement
    above = np.flatnonzero(loss > bound + ROUNDING * (1 + bound))
    if len(above):
        first = above[0]
        raise RuntimeError(
            f"sample {clean.index[first]}: loss {loss[first]:.6g} is above its bound "
            f"{bound[first]:.6g}"
        )
    return Samples(clean.index, clean.loss, displacement, bound, loss)


def _measured(columns: Columns) -> NDArray[np.float64]:
    """Only of a classifier that shows no features is there none, and no bound."""
    assert columns.displacement is not None
    return columns.displacement


def bound_along(
    components: Mapping[str, Columns],
    levels: Sequence[tuple[float, Sequence[str]]],
    *,
    clean: str,
    head_norm: float,
    spread: float,
) -> list[dict[str, Any]]:
    """For each radius the means over images, for `results.json`.

    Args:
        components: by name; each is asked for when it is needed.
        levels: each radius with its components.
        clean: name of the component of clean images.
        head_norm: ||W||_2.
        spread: of the clean features; R(f) is told in this unit, too, which does not
            change with the features' scale.
    """
    found = []
    for eps, names in levels:
        attacked = (components[name] for name in names)
        samples = samples_at(components[clean], attacked, head_norm=head_norm)
        moved = samples.displacement
        relative = mean_of((moved / spread).tolist()).as_dict() if spread else None
        means: dict[str, Mean] = {
            name: mean_of(getattr(samples, name).tolist())
            for name in ("clean_loss", "displacement", "bound", "loss")
        }
        found.append(
            {
                "eps": eps,
                "head_norm": rounded(head_norm),
                "relative_displacement": relative,
                **{name: mean.as_dict() for name, mean in means.items()},
            }
        )
    return found
