"""What an evaluation consists of: components, and the fixed grid its work is cut by."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rrl_dist.attacks.balls import Ball
from rrl_dist.attacks.result import Attack
from rrl_dist.core.errors import UserError
from rrl_dist.training.build import build

ATOM = 64  # samples; an atom is never divided, so re-cutting units keeps its rows equal
CLEAN = "clean"


@dataclass(frozen=True)
class Suite:
    """The components of an evaluation.

    Attributes:
        attacks: by component name, such as "pgd20-linf@0.05"; None for "clean".
        full: the components at the ball's full radius and "clean": their worst case
            is the robust accuracy.
        curve: (radius, component) by growing radius; may be empty.
        shown: the component of the gallery.
    """

    attacks: Mapping[str, Attack | None]
    full: tuple[str, ...]
    curve: tuple[tuple[float, str], ...]
    shown: str


def build_suite(
    config: Mapping[str, Any], ball: Mapping[str, Any], *, seed: int
) -> Suite:
    """The attacks of a suite.

    Args:
        config: `attacks` (configurations by name), `micro_batch`, and `curve`: None,
            or an `attack` of those and `relative_eps`, shares of the ball's radius.
        ball: configuration of the threat model.
        seed: of all attacks.

    Raises:
        UserError: two attacks of one name, or a curve of an attack that is not there.
    """
    widest: Ball = build(ball)

    def attack(name: str, ball: Ball) -> Attack:
        size = int(config["micro_batch"])
        made: Attack = build(
            config["attacks"][name], ball=ball, seed=seed, micro_batch=size
        )
        return made

    attacks: dict[str, Attack | None] = {CLEAN: None}
    for name in config["attacks"]:
        made = attack(name, widest)
        if component_name(made) in attacks:
            raise UserError(
                f"suite.attacks.{name} has the name of another, {component_name(made)}"
            )
        attacks[component_name(made)] = made
    full = tuple(attacks)
    curve: list[tuple[float, str]] = []
    if config["curve"] is not None:
        if config["curve"]["attack"] not in config["attacks"]:
            raise UserError(
                f"suite.curve.attack={config['curve']['attack']} is none of "
                f"{', '.join(config['attacks'])}"
            )
        shares = {0.0, 1.0, *map(float, config["curve"]["relative_eps"])}
        curve.append((0.0, CLEAN))
        for share in sorted(shares - {0.0}):
            made = attack(
                config["curve"]["attack"], widest.with_eps(share * widest.eps)
            )
            attacks[component_name(made)] = made
            curve.append((made.ball.eps, component_name(made)))
    return Suite(attacks, full, tuple(curve), shown=full[min(1, len(full) - 1)])


def component_name(attack: Attack) -> str:
    """Attack and ball, such as "pgd20-linf@0.05"."""
    return f"{attack.name}-{attack.ball.label()}"


@dataclass(frozen=True)
class Unit:
    """What a worker takes at once: samples `first` to `last` - 1 of one component."""

    number: int
    component: str
    first: int
    last: int

    @property
    def file(self) -> str:
        """Its rows, in the evaluation's folder."""
        return f"rows/unit-{self.number:05d}.parquet"

    @property
    def samples(self) -> int:
        """How many (sample, component) pairs it settles."""
        return self.last - self.first


@dataclass(frozen=True)
class Picture:
    """`count` images under a component, kept to be looked at."""

    component: str
    count: int
    samples: int = 0  # settles no pair

    @property
    def file(self) -> str:
        """Its arrays, in the evaluation's folder."""
        return f"gallery-{self.count}.npz"


Task = Unit | Picture


def cut(names: Sequence[str], samples: int, *, unit_atoms: int) -> list[Unit]:
    """Units over all components; samples are positions 0 to `samples` - 1."""
    size = ATOM * unit_atoms
    spans = [(at, min(at + size, samples)) for at in range(0, samples, size)]
    pairs = [(name, span) for name in names for span in spans]
    return [Unit(i, name, *span) for i, (name, span) in enumerate(pairs)]
