"""What a verdict is made of: probes, and what an evaluation's rows say of images."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rrl_dist.attacks.apgd import APGD
from rrl_dist.attacks.cascade import Cascade
from rrl_dist.attacks.fab import FAB
from rrl_dist.attacks.passes import Costed
from rrl_dist.attacks.result import Attack
from rrl_dist.attacks.transfer import Transfer
from rrl_dist.core.columns import Columns
from rrl_dist.evaluate.grid import CLEAN
from rrl_dist.evaluate.plan import Suite
from rrl_dist.evaluate.verdict.probes import Probes

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Evidence:
    """Of N images that were attacked.

    Attributes:
        probes: of some of them.
        index: [N] int64, growing.
        right: [N], whether the answer to the image itself is right.
        white: [N], broken at the full radius by an attack along gradients; None
            without any.
        black: [N], broken by one that asks for no gradient, where no attack along
            gradients of the same component came after it; None without any.
        transferred: [N], broken by an image made on another classifier; None likewise.
        alone: whether attacks of `black` were shown all images, and not only what
            others had left right.
        scale_free: whether an attack along gradients raises a loss that does not depend
            on the logits' scale.
        averaged: whether all attacks along gradients follow the mean of several passes.
        curve: [radii, N], broken by the curve's attack, by growing radius; or None.
    """

    probes: Probes
    index: NDArray[np.int64]
    right: Flags
    white: Flags | None
    black: Flags | None
    transferred: Flags | None
    alone: bool
    scale_free: bool
    averaged: bool
    curve: Flags | None


def evidence_of(probes: Probes, rows: Mapping[str, Columns], suite: Suite) -> Evidence:
    """Reads the rows of a component at a time.

    Args:
        probes: of the evaluation.
        rows: by component.
        suite: what was run.
    """
    clean = rows[CLEAN]
    found: dict[str, Flags] = {}
    for name in suite.full:
        attack = suite.attacks[name]
        if attack is not None:
            for kind, broken in _kinds(attack, rows[name]):
                found[kind] = found.get(kind, np.zeros_like(broken)) | broken
    white = [part for part in full_parts(suite) if kind_of(part) == "white"]
    return Evidence(
        probes=probes,
        index=clean.index,
        right=clean.correct,
        white=found.get("white"),
        black=found.get("black"),
        transferred=found.get("transferred"),
        alone=not any(isinstance(suite.attacks[name], Cascade) for name in suite.full),
        scale_free=any(_is_scale_free(part) for part in white),
        averaged=all(isinstance(p, APGD) and p.eot > 1 for p in white) and bool(white),
        curve=_curve(rows, suite),
    )


def full_parts(suite: Suite) -> list[Attack]:
    """The attacks at the full radius, those of components of several one by one."""
    return [part for name in suite.full for part in _parts(suite.attacks[name])]


def _parts(attack: Attack | None) -> tuple[Attack, ...]:
    if attack is None:
        return ()
    return attack.attacks if isinstance(attack, Cascade) else (attack,)


def kind_of(attack: Attack) -> str:
    """ "white" of an attack along the model's gradients, "black" of one without any, or
    "transferred"."""
    if isinstance(attack, Transfer):
        return "transferred"
    # An attack that does not tell its passes is taken for one along gradients: what it
    # breaks then speaks against nobody.
    asks_none = isinstance(attack, Costed) and attack.cost(10).backward == 0
    return "black" if asks_none else "white"


def _is_scale_free(attack: Attack) -> bool:
    return isinstance(attack, FAB) or (isinstance(attack, APGD) and attack.loss != "ce")


def _kinds(attack: Attack, columns: Columns) -> Iterator[tuple[str, Flags]]:
    """What the attacks of a component broke, by their kind."""
    if not isinstance(attack, Cascade):
        yield kind_of(attack), ~columns.correct
        return
    kinds = [kind_of(part) for part in attack.attacks]
    for place, (part, kind) in enumerate(zip(attack.attacks, kinds, strict=True)):
        if kind != "white" and "white" in kinds[place:]:
            # Those after it were not asked about what it broke.
            continue
        code = _code(columns, part.name)
        yield kind, columns.broken_by == code


def _code(columns: Columns, name: str) -> int:
    """Of an attack in `broken_by`; of one that broke nothing, a place that is none."""
    return columns.attacks.index(name) if name in columns.attacks else -2


def _curve(rows: Mapping[str, Columns], suite: Suite) -> Flags | None:
    names = [name for _, name in suite.curve if name != CLEAN]
    return np.stack([~rows[name].correct for name in names]) if names else None
