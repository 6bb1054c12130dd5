"""Cutting a data set once, the same way for everyone."""

import numpy as np
import torch
from numpy.typing import NDArray

from rrl_dist.core.errors import UserError
from rrl_dist.core.randomness import Key, uniform

# Not the run's seed: runs with different seeds must be validated on the same images.
_SEED = 0


def stratified(
    labels: NDArray[np.int64], *, fraction: float, key: tuple[Key, ...]
) -> NDArray[np.bool_]:
    """Choose `fraction` of each class.

    Every class of two samples or more gives at least one and keeps at least one; a
    class of one sample keeps it. Which samples of a class are chosen does not depend
    on the other classes, nor on the version of a library.

    Args:
        labels: [N] int64; samples with a negative label are never chosen.
        fraction: in [0, 1); 0 chooses nothing.
        key: names the cut.

    Returns:
        [N] bool, true where chosen.
    """
    chosen = np.zeros(len(labels), dtype=np.bool_)
    if fraction == 0:
        return chosen
    # Integer arithmetic of our own: numpy may change its permutations.
    draws = uniform(_SEED, "split", *key, index=torch.arange(len(labels)), n=1)[:, 0]
    for label in np.unique(labels[labels >= 0]):
        members = np.flatnonzero(labels == label)
        wanted = int(fraction * len(members) + 0.5)
        count = min(max(wanted, 1), len(members) - 1)
        order = np.argsort(draws[members].numpy(), kind="stable")
        chosen[members[order[:count]]] = True
    return chosen


def labelled(
    labels: NDArray[np.int64],
    index: NDArray[np.int64],
    *,
    fraction: float,
    key: tuple[Key, ...],
) -> NDArray[np.int64]:
    """Choose the images whose labels may be used: so much of each class.

    Every class gives at least one image. A smaller choice lies within a larger one,
    and which images of a class are chosen depends neither on their order nor on the
    other classes.

    Args:
        labels, index: [N] int64 each; samples with a negative label are never chosen.
        fraction: in (0, 1].
        key: names the choice.

    Returns:
        [M] int64, positions in ascending order.
    """
    draws = uniform(_SEED, "labels", *key, index=torch.as_tensor(index), n=1)[:, 0]
    order = np.lexsort((index, draws.numpy()))
    chosen = []
    for label in np.unique(labels[labels >= 0]):
        members = order[labels[order] == label]
        chosen.append(members[: max(1, int(fraction * len(members) + 0.5))])
    return np.sort(np.concatenate([np.zeros(0, dtype=np.int64), *chosen]))


def share_of(text: str) -> float:
    """The number in (0, 1] behind the "@" of a split such as "train@0.01".

    Raises:
        UserError: it is none.
    """
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise UserError(f"{text!r} is no share of a split; give one in (0, 1]")
    return share
