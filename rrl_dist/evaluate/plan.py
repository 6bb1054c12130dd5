"""What an evaluation consists of: its components, and what is done beside them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from rrl_dist.attacks.balls import Ball
from rrl_dist.attacks.cascade import Cascade
from rrl_dist.attacks.micro_batches import call_size
from rrl_dist.attacks.precision import PRECISIONS, in_precision
from rrl_dist.attacks.result import Attack
from rrl_dist.attacks.transfer import Transfer
from rrl_dist.core.errors import UserError
from rrl_dist.evaluate.corruption import Corruption, corruptions_of
from rrl_dist.evaluate.estimation import Estimation
from rrl_dist.evaluate.grid import CLEAN, Chain, Link
from rrl_dist.evaluate.order import ORDERS, in_order
from rrl_dist.training.build import build


@dataclass(frozen=True)
class Suite:
    """The components of an evaluation.

    Attributes:
        attacks: by component name, such as "pgd20-linf@0.05"; None for "clean" and for
            corruptions.
        full: the components at the ball's full radius and "clean": their worst case
            is the robust accuracy.
        curve: (radius, component) by growing radius; may be empty.
        levels: (radius, all components at it) by growing radius > 0, without "clean"
            and the search: what the bound is held against.
        search: the component that looks for the nearest adversarial image, or None.
        shown: the component of the gallery.
        corruptions: by component name, such as "gaussian_noise@3"; no part of the worst
            case.
        estimation: how the encoder's information about images is estimated, or None.
        ball: the threat model.
    """

    attacks: Mapping[str, Attack | None]
    full: tuple[str, ...]
    curve: tuple[tuple[float, str], ...]
    levels: tuple[tuple[float, tuple[str, ...]], ...]
    search: str | None
    shown: str
    corruptions: Mapping[str, Corruption] = field(default_factory=dict)
    estimation: Estimation | None = None
    ball: Ball | None = None

    @property
    def chains(self) -> list[Chain]:
        """Each component as the attacks that it is in turn, the image itself first."""
        return [chain_of(name, attack) for name, attack in self.attacks.items()]


def chain_of(component: str, attack: Attack | None) -> Chain:
    """One link, or of several attacks in turn one for each and for the image itself."""
    if not isinstance(attack, Cascade):
        return (Link(component),)
    names = (CLEAN, *(part.name for part in attack.attacks))
    return tuple(Link(component, name) for name in names)


def build_suite(
    config: Mapping[str, Any],
    ball: Mapping[str, Any],
    *,
    seed: int,
    device: torch.device | None = None,
    surrogates: Mapping[str, nn.Module] | None = None,
) -> Suite:
    """The attacks of a suite.

    Args:
        config: `attacks` (configurations by name), `micro_batch`, perhaps `precision`
            of their passes, and `curve`: None,
            or an `attack` of those, `relative_eps`, shares of the ball's radius, and
            perhaps `also`, a list of more attacks at these radii. Perhaps `order`, see
            `in_order`, of attacks in turn. Perhaps `search`: an
            `attack` and its `ball`. Perhaps `corruptions`: see `corruptions_of`.
            Perhaps `vulnerability`: a configuration of `Estimation`.
        ball: configuration of the threat model.
        seed: of all attacks.
        device: where they will run, which `micro_batch` None depends on; None for a
            CPU.
        surrogates: by name, classifiers on that device that each attack is made on as
            well, at the full radius, for the model to be shown its images.

    Raises:
        UserError: two attacks of one name, a curve of an attack that is not there, or
            a corruption that there is not.
    """
    size = call_size(device or torch.device("cpu"), config["micro_batch"])
    precision = str(config.get("precision", PRECISIONS[0]))
    make = partial(_make, size=size, seed=seed, precision=precision)
    widest: Ball = build(ball)
    order = str(config.get("order", ORDERS[0]))
    at_full = {
        name: in_order(attack, order) if isinstance(attack, Cascade) else attack
        for name, attack in _at_full_radius(
            config["attacks"], partial(make, ball=widest)
        ).items()
    }
    settings: dict[str, Any] = {"ball": widest, "seed": seed, "micro_batch": size}
    at_full |= _transferred(config["attacks"], surrogates or {}, settings)
    along = _along_curve(config, make, widest)
    followed = [attack for group in along for attack in group]
    attacks: dict[str, Attack | None] = {CLEAN: None, **at_full}
    attacks |= {component_name(attack): attack for attack in followed}
    search = _search(config.get("search"), make)
    if search is not None:
        attacks[component_name(search)] = search
    corruptions = corruptions_of(config.get("corruptions"))
    attacks |= dict.fromkeys(corruptions)
    estimation = config.get("vulnerability")
    full = (CLEAN, *at_full)
    points = [(first.ball.eps, component_name(first)) for first, *_ in along]
    return Suite(
        attacks=attacks,
        full=full,
        curve=((0.0, CLEAN), *points) if config["curve"] is not None else (),
        levels=_levels([*at_full.values(), *followed]),
        search=None if search is None else component_name(search),
        shown=full[min(1, len(full) - 1)],
        corruptions=corruptions,
        estimation=None if estimation is None else build(estimation),
        ball=widest,
    )


def _make(
    config: Mapping[str, Any], ball: Ball, *, size: int, seed: int, precision: str
) -> Attack:
    made: Attack = build(config, ball=ball, seed=seed, micro_batch=size)
    return in_precision(made, precision)


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


def _transferred(
    configs: Mapping[str, Any],
    surrogates: Mapping[str, nn.Module],
    settings: Mapping[str, Any],
) -> dict[str, Attack]:
    """Each attack on each surrogate, by component name."""
    attacks: dict[str, Attack] = {}
    for source, surrogate in surrogates.items():
        for own in configs.values():
            made = Transfer(
                surrogate=surrogate,
                source=source,
                attack=partial(build, own),
                **settings,
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
class Picture:
    """`count` images under a component, kept to be looked at."""

    component: str
    count: int

    @property
    def file(self) -> str:
        """Its arrays, in the evaluation's folder."""
        return f"gallery-{self.count}.npz"


@dataclass(frozen=True)
class Survey:
    """Measures of the encoder on all clean images, and of the head."""

    @property
    def file(self) -> str:
        """Its numbers, in the evaluation's folder."""
        return "survey.json"


@dataclass(frozen=True)
class Information:
    """The encoder's information about images: clean ones, or attacked ones."""

    attacked: bool

    @property
    def file(self) -> str:
        """Its estimates, in the evaluation's folder."""
        return f"information-{'worst' if self.attacked else 'normal'}.json"


@dataclass(frozen=True)
class Probing:
    """Measurements on the first `count` images, of which the verdict is made."""

    count: int

    @property
    def file(self) -> str:
        """Its numbers, in the evaluation's folder."""
        return f"probes-{self.count}.json"


Task = Picture | Survey | Information | Probing
