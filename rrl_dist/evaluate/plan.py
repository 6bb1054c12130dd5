"""What an evaluation consists of: components, and the fixed grid its work is cut by."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
        levels: (radius, all components at it) by growing radius > 0, without "clean"
            and the search: what the bound is held against.
        search: the component that looks for the nearest adversarial image, or None.
        shown: the component of the gallery.
    """

    attacks: Mapping[str, Attack | None]
    full: tuple[str, ...]
    curve: tuple[tuple[float, str], ...]
    levels: tuple[tuple[float, tuple[str, ...]], ...]
    search: str | None
    shown: str


def build_suite(
    config: Mapping[str, Any], ball: Mapping[str, Any], *, seed: int
) -> Suite:
    """The attacks of a suite.

    Args:
        config: `attacks` (configurations by name), `micro_batch`, and `curve`: None,
            or an `attack` of those, `relative_eps`, shares of the ball's radius, and
            perhaps `also`, a list of more attacks at these radii. Perhaps `search`: an
            `attack` and its `ball`.
        ball: configuration of the threat model.
        seed: of all attacks.

    Raises:
        UserError: two attacks of one name, or a curve of an attack that is not there.
    """
    make = partial(_make, size=int(config["micro_batch"]), seed=seed)
    widest: Ball = build(ball)
    at_full = _at_full_radius(config["attacks"], partial(make, ball=widest))
    along = _along_curve(config, make, widest)
    followed = [attack for group in along for attack in group]
    attacks: dict[str, Attack | None] = {CLEAN: None, **at_full}
    attacks |= {component_name(attack): attack for attack in followed}
    search = _search(config.get("search"), make)
    if search is not None:
        attacks[component_name(search)] = search
    full = (CLEAN, *at_full)
    points = [(first.ball.eps, component_name(first)) for first, *_ in along]
    return Suite(
        attacks=attacks,
        full=full,
        curve=((0.0, CLEAN), *points) if config["curve"] is not None else (),
        levels=_levels([*at_full.values(), *followed]),
        search=None if search is None else component_name(search),
        shown=full[min(1, len(full) - 1)],
    )


def _make(config: Mapping[str, Any], ball: Ball, *, size: int, seed: int) -> Attack:
    made: Attack = build(config, ball=ball, seed=seed, micro_batch=size)
    return made


def _at_full_radius(
    configs: Mapping[str, Any], make: Callable[[Mapping[str, Any]], Attack]
) -> dict[str, Attack]:
    """By component name.

    Raises:
        UserError: two attacks of one name.
    """
    attacks: dict[str, Attack] = {}
    for name, config in configs.items():
        made = make(config)
        if component_name(made) in attacks:
            raise UserError(
                f"suite.attacks.{name} has the name of another, {component_name(made)}"
            )
        attacks[component_name(made)] = made
    return attacks


def _along_curve(
    config: Mapping[str, Any],
    make: Callable[[Mapping[str, Any], Ball], Attack],
    widest: Ball,
) -> list[list[Attack]]:
    """By growing radius > 0 the curve's attack, then those of `also`.

    Raises:
        UserError: an attack that the suite does not have.
    """
    curve = config["curve"]
    if curve is None:
        return []
    also = list(curve.get("also", ()))
    keys = [("attack", curve["attack"]), *(("also", name) for name in also)]
    for key, name in keys:
        if name not in config["attacks"]:
            raise UserError(
                f"suite.curve.{key}={name} is none of {', '.join(config['attacks'])}"
            )
    shares = {1.0, *map(float, curve["relative_eps"])} - {0.0}
    balls = [widest.with_eps(share * widest.eps) for share in sorted(shares)]
    return [[make(config["attacks"][n], ball) for _, n in keys] for ball in balls]


def _search(
    config: Mapping[str, Any] | None, make: Callable[[Mapping[str, Any], Ball], Attack]
) -> Attack | None:
    """The search for the nearest adversarial image.

    Raises:
        UserError: it may search nowhere.
    """
    if config is None:
        return None
    ball: Ball = build(config["ball"])
    if ball.eps == 0:
        raise UserError("suite.search.ball.eps=0; set the largest radius to try, > 0")
    return make(config["attack"], ball)


def _levels(attacks: Sequence[Attack]) -> tuple[tuple[float, tuple[str, ...]], ...]:
    """Each radius > 0 with the names of the components at it."""
    levels: dict[float, dict[str, None]] = {}
    for attack in attacks:
        if attack.ball.eps > 0:
            names = levels.setdefault(attack.ball.eps, {})
            names[component_name(attack)] = None
    return tuple((eps, tuple(levels[eps])) for eps in sorted(levels))


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


@dataclass(frozen=True)
class Survey:
    """Measures of the encoder on all clean images, and of the head."""

    samples: int = 0  # settles no pair

    @property
    def file(self) -> str:
        """Its numbers, in the evaluation's folder."""
        return "survey.json"


Task = Unit | Picture | Survey


def cut(names: Sequence[str], samples: int, *, unit_atoms: int) -> list[Unit]:
    """Units over all components; samples are positions 0 to `samples` - 1."""
    size = ATOM * unit_atoms
    spans = [(at, min(at + size, samples)) for at in range(0, samples, size)]
    pairs = [(name, span) for name in names for span in spans]
    return [Unit(i, name, *span) for i, (name, span) in enumerate(pairs)]
