"""The bound on the adversarial loss, beside the loss that attacks reach.

Derived in `rrl_dist.objectives.tarrl`. For an image x, its features f(x), a linear head
W h + b and the cross-entropy l in nats,

    l(x') <= l(x) + sqrt(2) ||W||_2 ||f(x') - f(x)||    for each image x'.

R(f) is the mean over images of the largest displacement ||f(x') - f(x)|| in the ball.
Here it is the largest among the images that the attacks have found, which is less; but
the loss is measured on the same images, so it lies under this bound sample by sample.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rrl_dist.core.aggregate import Mean, mean_of, rounded
from rrl_dist.core.records import Row

# A clean and an attacked row may come from two devices whose features' last digits
# differ; without that, 1e-9 would do.
ROUNDING = 1e-4


@dataclass(frozen=True)
class Sample:
    """One image at one radius.

    Attributes:
        index: its place in the data set.
        clean_loss: cross-entropy at the image itself, nats.
        displacement: the largest of the images that attacks have found for it.
        bound: on the cross-entropy, nats.
        loss: the largest cross-entropy of these images and itself, nats.
    """

    index: int
    clean_loss: float
    displacement: float
    bound: float
    loss: float


def samples_at(
    clean: Sequence[Row], attacked: Sequence[Sequence[Row]], *, head_norm: float
) -> list[Sample]:
    """The bound and the loss of each image.

    Args:
        clean: rows of the clean images.
        attacked: the rows of each component at one radius, of the same images.
        head_norm: ||W||_2.

    Raises:
        RuntimeError: a loss above its bound, which can only be an error of ours.
    """
    by_index = [{row.index: row for row in rows} for rows in attacked]
    samples = []
    for row in clean:
        found = [row, *(rows[row.index] for rows in by_index)]
        displacement = max(each.displacement for each in found)
        bound = row.loss + math.sqrt(2) * head_norm * displacement
        loss = max(each.loss for each in found)
        if loss > bound + ROUNDING * (1 + bound):
            raise RuntimeError(
                f"sample {row.index}: loss {loss:.6g} is above its bound {bound:.6g}"
            )
        samples.append(Sample(row.index, row.loss, displacement, bound, loss))
    return samples


def bound_along(
    groups: Mapping[str, Sequence[Row]],
    levels: Sequence[tuple[float, Sequence[str]]],
    *,
    clean: str,
    head_norm: float,
    spread: float,
) -> list[dict[str, Any]]:
    """For each radius the means over images, for `results.json`.

    Args:
        groups: rows by component.
        levels: each radius with its components.
        clean: name of the component of clean images.
        head_norm: ||W||_2.
        spread: of the clean features; R(f) is told in this unit, too, which does not
            change with the features' scale.
    """
    found = []
    for eps, names in levels:
        attacked = [groups[name] for name in names]
        samples = samples_at(groups[clean], attacked, head_norm=head_norm)
        moved = [sample.displacement for sample in samples]
        relative = mean_of([d / spread for d in moved]).as_dict() if spread else None
        means: dict[str, Mean] = {
            "clean_loss": mean_of([sample.clean_loss for sample in samples]),
            "displacement": mean_of(moved),
            "bound": mean_of([sample.bound for sample in samples]),
            "loss": mean_of([sample.loss for sample in samples]),
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
