"""Signs that an attack fails, and not that a classifier is robust, in one trial's
results.

A search for the highest robust accuracy finds settings whose gradients mislead the
attack as readily as settings that are robust. These are the signs of masked gradients
of Athalye et al. 2018, arXiv:1802.00420, section 3.1, which Carlini et al. 2019,
arXiv:1902.06705, ask each evaluation to rule out, as far as numbers of `results.json`
show them. None of them is a proof that nothing is masked.

A trial that shows a sign is worth nothing to its sweep, so a sign has to stand out of
the intervals. Of two equal shares with 95 % intervals, each of its own images, the
first lies clear above the second about once in 350 times; these are of the same images
and move together, so it is less often. Simulated robust classifiers, under attacks that
each miss one image in twenty at random, show one less than once in 1,000 times
(tests/tune/test_masking.py). What the suite does not measure is not held against a
trial.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from rrl_dist.core.aggregate import wilson

Entry = Mapping[str, Any]

# From here on a ball around any image of [0, 1] pixels holds the grey one. In other
# norms the radius depends on the image's size, which results do not tell.
GREY = {"linf": 0.5}
# What Square may break of images that all others left: AutoAttack's own flag,
# fra31/auto-attack, checks.py, check_square_sr.
SQUARE_BREAKS = 0.002
_NORM = re.compile(r"-(linf|l2|l1)@[0-9.e-]+\Z", re.ASCII)
_BLACK_BOX = re.compile(r"square(-.*)?|.+-from-.+", re.ASCII)


@dataclass(frozen=True)
class Sign:
    """What a check has seen.

    Attributes:
        masked: whether it speaks for masked gradients.
        line: in words, with the numbers.
    """

    masked: bool
    line: str


def signs(entry: Entry, classes: int) -> dict[str, Sign]:
    """What the checks have seen, by their name in `CHECKS`; without those that cannot
    be made of what the suite has measured.

    Args:
        entry: an arm's part of `results.json`.
        classes: that a guess chooses from, about equally frequent; at least 2.
    """
    seen = {name: check(entry, 1 / classes) for name, check in CHECKS.items()}
    return {name: sign for name, sign in seen.items() if sign is not None}


def masking_checks(entry: Entry, classes: int) -> list[str]:
    """A line for each check that failed; see `signs`."""
    return [sign.line for sign in signs(entry, classes).values() if sign.masked]


def monotone(entry: Entry, guess: float) -> Sign | None:
    """More radius never makes images right: what breaks one is in each larger ball.

    Athalye et al., "increasing distortion bound does not increase success"; Carlini et
    al. ask for the whole curve. Masked where the interval at a radius lies above that
    at a smaller one, and above guessing: under it nothing is claimed to be robust.
    """
    points = _curve(entry)
    if len(points) < 2:
        return None
    least = points[0]
    for point in points[1:]:
        if point["low"] > max(least["high"], guess):
            return Sign(
                True,
                f"accuracy rises with the radius, from {_told(least)} at eps "
                f"{least['eps']:.4g} to {_told(point)} at {point['eps']:.4g}",
            )
        least = min(least, point, key=lambda each: float(each["high"]))
    return Sign(False, f"accuracy does not rise along {len(points)} radii")


def unbounded(entry: Entry, guess: float) -> Sign | None:
    """An attack that may turn each image into the same one leaves no more right than
    one answer to all does.

    Athalye et al., "unbounded attacks do not reach 100 % success"; Carlini et al. ask
    for a radius at which accuracy is that of guessing. A multiple of the ball will not
    do: networks for MNIST are truly right at 0.3 (Madry et al. 2018, arXiv:1706.06083).
    The ball has to hold the grey image (`GREY`), and then this is no matter of degree.
    Masked where the interval at the largest radius lies above guessing.
    """
    points = _curve(entry)
    grey = GREY.get(_norm(entry))
    if grey is None or not points or points[-1]["eps"] < grey:
        return None
    last = points[-1]
    return Sign(
        bool(last["low"] > guess),
        f"accuracy is {_told(last)} at eps {last['eps']:.4g}, which can turn any image "
        f"into any grey; guessing is {guess:.3g}",
    )


def black_box(entry: Entry, guess: float) -> Sign | None:
    """An attack that sees less breaks no more.

    Athalye et al., "black-box attacks are better than white-box attacks"; Carlini et
    al. ask for transferred images, and for an attack without gradients. Masked where
    the interval of Square, or of images made on another classifier, lies below that of
    the best attack along gradients; or where Square, last of several attacks in turn,
    breaks more of all images than `SQUARE_BREAKS`, by the lower end of its interval.
    """
    seen = [*_in_turn(entry), *_side_by_side(entry)]
    return next((sign for sign in seen if sign.masked), seen[0] if seen else None)


def guessing(entry: Entry, guess: float) -> Sign | None:
    """A classifier that has learned nothing is not to be called robust.

    Carlini et al. ask for the accuracy on clean images beside each robust one. Masked
    where the interval of the clean accuracy reaches down to guessing: an encoder that
    has collapsed, which is then right under any attack as often as it guesses right.
    """
    clean = entry["components"].get("clean")
    if clean is None:
        return None
    return Sign(
        bool(clean["low"] <= guess),
        f"clean accuracy is {_told(clean)}; guessing is {guess:.3g}",
    )


# Each is given an arm's results and the accuracy of one answer to all images, and tells
# nothing where the suite does not measure what it takes.
CHECKS: Mapping[str, Callable[[Entry, float], Sign | None]] = {
    "monotone": monotone,
    "black_box": black_box,
    "unbounded": unbounded,
    "guessing": guessing,
}


def _curve(entry: Entry) -> list[Entry]:
    """Its points by growing radius."""
    return sorted(entry.get("curve") or (), key=lambda point: float(point["eps"]))


def _norm(entry: Entry) -> str:
    """Of the ball, as the components have it in their names; "" if there are none."""
    found = map(_NORM.search, entry["components"])
    return next((match[1] for match in found if match is not None), "")


def _told(share: Entry) -> str:
    return f"{share['value']:.3g} [{share['low']:.3g}, {share['high']:.3g}]"


def _in_turn(entry: Entry) -> Iterator[Sign]:
    """Square after all others: what it broke is a share of the same images, and has an
    interval of its own."""
    for name, component in entry["components"].items():
        for before, last in list(pairwise(component.get("after", ())))[-1:]:
            if last["attack"] != "square" or before["attack"] == "clean":
                continue
            count = int(last["count"])
            broken = round((before["value"] - last["value"]) * count)
            share = wilson(broken, count)
            yield Sign(
                share.low > SQUARE_BREAKS,
                f"Square breaks {broken} of {count} images that the attacks of {name} "
                "along gradients left right",
            )


def _side_by_side(entry: Entry) -> Iterator[Sign]:
    """Each attack that sees less beside the best of those along gradients.

    A component of several attacks in turn has both kinds and is neither.
    """
    alone = {
        name: component
        for name, component in entry["components"].items()
        if name != "clean" and "after" not in component
    }
    blind = {name for name in alone if _BLACK_BOX.fullmatch(name)}
    white = [name for name in alone if name not in blind]
    if not white:
        return
    best = min(white, key=lambda name: float(alone[name]["value"]))
    for name in alone:
        if name in blind:
            yield Sign(
                bool(alone[name]["high"] < alone[best]["low"]),
                f"{name} leaves {_told(alone[name])} right, {best} "
                f"{_told(alone[best])}",
            )
