"""The fixed grid that an evaluation's work is cut by, and what a worker takes of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

ATOM = 64  # samples; an atom is never divided, so units of any size have the same rows
CLEAN = "clean"


@dataclass(frozen=True)
class Link:
    """One attack's turn at the samples.

    Attributes:
        component: that it is of.
        attack: its name in a component of several attacks in turn, where it is asked
            only about what those before it have left right; None where it is alone.
    """

    component: str
    attack: str | None = None

    @property
    def name(self) -> str:
        """Such as "pgd20-linf@0.05", or "autoattack-linf@0.05:apgd-ce"."""
        if self.attack is None:
            return self.component
        return f"{self.component}:{self.attack}"


Chain = tuple[Link, ...]


@dataclass(frozen=True)
class Unit:
    """What a worker takes at once: some atoms of one link.

    Attributes:
        link: whose turn it is.
        atoms: numbers of the atoms, growing.
        positions: of their samples those to be asked about, growing.
    """

    link: Link
    atoms: tuple[int, ...]
    positions: tuple[int, ...]

    @property
    def file(self) -> str:
        """Its rows, in the evaluation's store. Another cut has another name."""
        atoms = ",".join(map(str, self.atoms))
        digest = sha256(f"{self.link.name} {atoms}".encode()).hexdigest()[:12]
        first, last = self.atoms[0], self.atoms[-1]
        return f"rows/{self.link.name}/{first:06d}-{last:06d}-{digest}.parquet"

    @property
    def samples(self) -> int:
        """How many it asks about."""
        return len(self.positions)


def atom_count(samples: int) -> int:
    """Atoms that cover positions 0 to `samples` - 1."""
    return -(-samples // ATOM)


def atom_positions(atom: int, samples: int) -> range:
    """The positions of an atom; the last one may be short."""
    return range(atom * ATOM, min((atom + 1) * ATOM, samples))


def atoms_of(positions: Iterable[int]) -> tuple[int, ...]:
    """Numbers of the atoms that these positions are in, growing."""
    return tuple(sorted({position // ATOM for position in positions}))
