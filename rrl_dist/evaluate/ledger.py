"""What an evaluation has on disk: its plan, and the rows of the units that are done.

Atoms are finished once and for all. A file of rows names the atoms that it holds; what
is damaged, or does not fit what the attacks before it have left, is named, removed, and
its atoms are done again.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from rrl_dist.core.columns import READ, Columns, Latest, numbers
from rrl_dist.core.errors import UserError
from rrl_dist.core.records import SCHEMA, DamagedError, from_bytes, to_bytes
from rrl_dist.core.store import Store
from rrl_dist.evaluate.grid import ATOM, Chain, Link, Unit
from rrl_dist.evaluate.schedule import Schedule

MANIFEST, PLAN = "manifest.json", "plan.json"
_ALL = tuple(SCHEMA.names)
# In the order of importance for whoever is told which of them differ.
_KNOWN = ("weights", "images", "suite", "ball", "seed", "limit", "code")


@dataclass(frozen=True)
class Kept:
    """What a file of rows holds.

    Attributes:
        atoms: their numbers.
        positions: [N] int64 in the order of the rows.
        correct: [N] bool.
        seconds: of all rows together.
    """

    atoms: tuple[int, ...]
    positions: NDArray[np.int64]
    correct: NDArray[np.bool_]
    seconds: float


class Ledger(Mapping[str, Columns]):
    """The files of one evaluation; by component, what is averaged of its rows.

    Nothing of them is kept in memory.

    Attributes:
        drawn: only samples at positions below it are read. An evaluation that ends
            early may have rows beyond, of attacks that ran ahead or of an earlier
            attempt with another rule.

    Args:
        store: where they are.
        chains: the components.
        index: [N] int64, of the samples at positions 0 to N - 1.
    """

    def __init__(
        self, store: Store, chains: Sequence[Chain], index: NDArray[np.int64]
    ) -> None:
        self.store, self.chains, self.index = store, tuple(chains), index
        self._order = np.argsort(index, kind="stable")
        self._sorted = index[self._order]
        self.drawn = len(index)
        self._chain = {chain[0].component: chain for chain in self.chains}

    def claim(self, fingerprint: Mapping[str, object]) -> None:
        """Write manifest and plan, or hold those there are against this evaluation.

        Raises:
            UserError: the folder holds another evaluation, naming what differs.
        """
        if not self.store.exists(MANIFEST):
            plan = {
                "atom": ATOM,
                "samples": len(self.index),
                "components": [[link.name for link in chain] for chain in self.chains],
            }
            self.store.write_json(PLAN, plan)
            self.store.write_json(MANIFEST, {"fingerprint": dict(fingerprint)})
            return
        theirs = self.store.read_json(MANIFEST)["fingerprint"]
        names = [n for n in _KNOWN if n in fingerprint.keys() | theirs.keys()]
        names += sorted((fingerprint.keys() | theirs.keys()) - set(names))
        wrong = [name for name in names if fingerprint.get(name) != theirs.get(name)]
        if wrong:
            raise UserError(
                f"{self.store.address} holds an evaluation with another "
                f"{', '.join(wrong)}; choose another name="
            )

    def restore(self, schedule: Schedule) -> Iterator[str]:
        """Tell a schedule what is done already.

        Yields:
            a line for each file that is of no use; it is removed.
        """
        for chain in self.chains:
            for link in chain:
                for name in self._files(link):
                    try:
                        self._restore(schedule, link, name)
                    except DamagedError as error:
                        self.store.remove(name)
                        yield f"{error}; removed, its rows are made again"

    def _restore(self, schedule: Schedule, link: Link, name: str) -> None:
        kept = self._kept(name)
        atoms = tuple(a for a in kept.atoms if schedule.is_ready(link, a))
        expected = [p for a in kept.atoms for p in schedule.positions(link, a)]
        fits = len(atoms) < len(kept.atoms) or expected == kept.positions.tolist()
        if not fits:
            raise DamagedError(f"{name} does not fit what comes before it")
        if not atoms:
            return  # another file has them
        inside = np.isin(kept.positions // ATOM, atoms)
        positions = kept.positions[inside].tolist()
        right = kept.positions[inside & kept.correct].tolist()
        share = kept.seconds * len(positions) / max(len(kept.positions), 1)
        try:
            schedule.restore(Unit(link, atoms, tuple(positions)), right, share)
        except ValueError as error:
            raise DamagedError(str(error)) from None

    def _kept(self, name: str) -> Kept:
        table, about = from_bytes(self.store.read(name), name)
        try:
            atoms = tuple(int(atom) for atom in about["atoms"].split(","))
        except (KeyError, ValueError):
            raise DamagedError(f"{name} does not say what it holds") from None
        place = self._places(table, name)
        return Kept(
            atoms=atoms,
            positions=self._order[place],
            correct=numbers(table, "correct").astype(bool),
            seconds=float(pc.sum(table["seconds"]).as_py() or 0.0),
        )

    def _places(self, table: pa.Table, name: str) -> NDArray[np.int64]:
        """Of a file's samples among all, by growing index."""
        index = numbers(table, "index")
        place = np.searchsorted(self._sorted, index).clip(max=len(self._sorted) - 1)
        if not np.array_equal(self._sorted[place], index):
            raise DamagedError(f"{name} holds samples of another evaluation")
        return place

    def _files(self, link: Link) -> list[str]:
        return self.store.names(f"rows/{link.name}")

    def table(self, component: str, columns: Sequence[str] = _ALL) -> pa.Table:
        """A component's rows, one a sample, by growing index.

        Of a component that is several attacks in turn a row is that of the last attack
        that was asked about the sample, with the queries and seconds of all.
        """
        links = self._chain[component]
        found = self._table(links, columns)
        if len(links) == 1 or "component" not in columns:
            return found
        place = found.schema.get_field_index("component")
        names = pa.repeat(component, len(found))
        return found.set_column(place, SCHEMA.field(place), names)

    def __getitem__(self, component: str) -> Columns:
        return Columns.of(self.table(component, READ))

    def __iter__(self) -> Iterator[str]:
        return iter(self._chain)

    def __len__(self) -> int:
        return len(self._chain)

    def link_table(self, link: Link) -> pa.Table:
        """Rows of one attack's turn, one a sample, by growing index."""
        return self._table([link], SCHEMA.names)

    def _table(self, links: Iterable[Link], columns: Sequence[str]) -> pa.Table:
        found = Latest(len(self.index), columns)
        for link in links:
            found.put(self._read(link, columns))
        if self.drawn < len(self.index):
            found.keep(self._order < self.drawn)
        pa.default_memory_pool().release_unused()
        return found.table()

    def _read(
        self, link: Link, columns: Sequence[str]
    ) -> Iterator[tuple[NDArray[np.int64], pa.Table]]:
        for name in self._files(link):
            table, _ = from_bytes(self.store.read(name), name, columns)
            yield self._places(table, name), table

    def write_samples(self) -> None:
        """Leave every component's rows as one file, `samples/COMPONENT.parquet`."""
        for component in self._chain:
            content = to_bytes(self.table(component), {})
            self.store.write(f"samples/{component}.parquet", content)
