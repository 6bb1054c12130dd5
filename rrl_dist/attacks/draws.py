"""Random draws for rows that are at different trials and steps."""

from torch import Tensor

from rrl_dist.core.randomness import normal, uniform

# Bits of a draw's place; a sample's id fills those below.
_TRIAL, _STEP = 32, 40


def row_draws(
    seed: int,
    name: str,
    purpose: str,
    ids: Tensor,
    number: Tensor,
    step: Tensor,
    n: int,
) -> Tensor:
    """Uniform draws that belong to (sample, trial, step), whatever row it sits in.

    Args:
        seed: the attack's seed.
        name: the attack's name.
        purpose: what is drawn, such as "window".
        ids: [M] int64, the samples. No two places share their draws as long as ids are
            in [0, 2**32).
        number: [M] int64, the trial of each row, in [0, 256).
        step: [M] int64, the step of each row, in [0, 2**23).
        n: draws per row.

    Returns:
        [M, n] float32 in [0, 1).
    """
    place = ids + (number << _TRIAL) + (step << _STEP)
    return uniform(seed, name, purpose, index=place, n=n)


def row_normals(
    seed: int,
    name: str,
    purpose: str,
    ids: Tensor,
    step: Tensor,
    n: int,
) -> Tensor:
    """As `row_draws` of trial 0, [M, n] standard normal."""
    return normal(seed, name, purpose, index=ids + (step << _STEP), n=n)
