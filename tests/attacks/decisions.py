"""Decision-based attacks side by side at equal queries.

`python -m tests.attacks.decisions IMAGES QUERIES` prints median distances on the
network of `test_attacks_fixture.py`.
"""

import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from rrl_dist.attacks import L2, TangentAttack
from rrl_dist.attacks.foolbox_attacks import Boundary, HopSkipJump
from rrl_dist.attacks.passes import counted
from rrl_dist.attacks.result import Attack

# So that every distance counts.
COMMON: dict[str, Any] = {"ball": L2(1000.0), "seed": 0, "micro_batch": 16}


def tangent(queries: int, **changes: Any) -> TangentAttack:
    """With the settings of its file."""
    settings: dict[str, Any] = {**COMMON, "directions": 100, "tolerance": 1.0}
    return TangentAttack(**{**settings, "queries": queries, **changes})


def hopskipjump(queries: int, **changes: Any) -> HopSkipJump:
    """With the settings of its file."""
    settings: dict[str, Any] = {**COMMON, "directions": 100, "gamma": 1.0}
    return HopSkipJump(**{**settings, "queries": queries, **changes})


def boundary(queries: int, **changes: Any) -> Boundary:
    """With the settings of its file."""
    settings: dict[str, Any] = {**COMMON, "spherical_step": 0.01, "source_step": 0.01}
    return Boundary(**{**settings, "queries": queries, **changes})


def distances(attack: Attack, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """[N] of images that the model is right about, each of which is wrong afterwards;
    queries are held against what the model was called with."""
    with counted(model) as passes:
        found = attack.run(model, x, y)
    assert int(found.queries.sum()) <= passes.forward
    with torch.no_grad():
        assert bool((model(found.x_adv).argmax(1) != y).all())
    return L2(1.0).distance(found.x_adv, x)


def compared(
    attacks: Iterable[Attack], model: nn.Module, x: Tensor, y: Tensor
) -> dict[str, Tensor]:
    """Distances by name, told one by one."""
    found: dict[str, Tensor] = {}
    for attack in attacks:
        found[attack.name] = distances(attack, model, x, y)
        each = found[attack.name]
        print(
            f"{attack.name}: {len(x)} images, median {each.median():.4f}, "
            f"mean {each.mean():.4f}",
            flush=True,
        )
    return found


def on_the_fixture(count: int, queries: int) -> dict[str, Tensor]:
    """Distances by name, on its first images that its network is right about."""
    from tests.attacks import test_attacks_fixture as fixture

    about = fixture.read_about()
    x, y = fixture.read_images(about)
    model = fixture.network()
    with torch.no_grad():
        places = (model(x).argmax(1) == y).nonzero()[:count, 0]
    attacks = tangent(queries), hopskipjump(queries)
    return compared(attacks, model, x[places], y[places])


if __name__ == "__main__":
    torch.set_num_threads(1)
    on_the_fixture(*map(int, sys.argv[1:3]))
