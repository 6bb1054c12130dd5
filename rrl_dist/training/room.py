"""How many workers a cluster has room for, as its nodes come and go."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rrl_dist.core.errors import UserError
from rrl_dist.training.nodes import Node, alive_nodes

_SETTLE = 5.0  # seconds in which what a group held becomes free after its end
_EVERY = 0.5  # seconds between two looks
# The same, at whether a group could be larger; and after one that did not find the room
# that there seemed to be, twice as long after each.
_GROWTH_SECONDS, _AGAIN_SECONDS, _MOST_SECONDS = 5.0, 300.0, 3600.0

Config = Mapping[str, Any]
Nodes = Mapping[str, Mapping[str, float]]  # resources of nodes by their ids


def least_workers(cluster: Config) -> int:
    """The fewest that train."""
    least = cluster.get("min_workers")
    return int(cluster["workers"] if least is None else least)


def group_size(batch_size: int, *, least: int, most: int, room: int) -> int:
    """The most workers that there is room for and that share a batch evenly; 0 if that
    is fewer than `least`."""
    fitting = (n for n in range(min(most, room), least - 1, -1) if batch_size % n == 0)
    return next(fitting, 0)


@dataclass(frozen=True)
class Room:
    """For workers.

    Attributes:
        whole: on all nodes that are there and stay, were nothing else on them.
        free: of that, what nothing else holds.
    """

    whole: int
    free: int


def room_now(cluster: Config, *, held: int, fit: Callable[[Node], bool]) -> Room:
    """What there is room for.

    Args:
        cluster: as `session` yields it.
        held: workers of the run that are running, whose room counts as free.
        fit: whether workers may be on a node, as Ray knows it.
    """
    from ray._private.state import state  # as Ray Train finds nodes that are drained

    leaving = set(state.get_draining_nodes())
    whole = {
        node["NodeID"]: node["Resources"]
        for node in alive_nodes()
        if node["NodeID"] not in leaving and fit(node)
    }
    free = state.available_resources_per_node()  # type: ignore[no-untyped-call]
    return room_in(whole, free, cluster, held=held)


def room_in(whole: Nodes, free: Nodes, cluster: Config, *, held: int) -> Room:
    """The room on some nodes. A worker has all that it needs on one of them.

    Args:
        whole: what each has.
        free: what nothing holds of that, and perhaps of nodes that do not count.
        cluster, held: as of `room_now`.
    """
    most = sum(_workers_in(node, cluster) for node in whole.values())
    left = sum(_workers_in(free.get(node, {}), cluster) for node in whole)
    return Room(most, min(most, held + left))


def _workers_in(resources: Mapping[str, float], cluster: Config) -> int:
    room = resources.get("CPU", 0.0) // cluster["cpus_per_worker"]
    if cluster["gpu"]:
        share = cluster.get("gpus_per_worker", 1)
        room = min(room, resources.get("GPU", 0.0) // share)
    return int(room)


class Sizes:
    """How large groups may be, by whether earlier ones found their places.

    What nodes have free, and what Ray can place there, are not always the same.

    Args:
        cluster: `workers`, and perhaps `min_workers`.
        batch_size: of the global batch.

    Attributes:
        most: workers of the next group.
    """

    def __init__(self, cluster: Config, batch_size: int) -> None:
        self.cluster, self.batch_size = cluster, batch_size
        self.most = self._all = int(cluster["workers"])
        self._ran = self._too_many = self._misses = 0

    def found(self, size: int) -> None:
        """A group of this size found its places."""
        self._ran = size
        if size >= self._too_many:
            self._misses = 0

    def missed(self, size: int) -> None:
        """One did not: the next is as large as the last that did, or a worker less."""
        self._misses, self._too_many = self._misses + 1, size
        fewer = self._ran if 0 < self._ran < size else size - 1
        least = least_workers(self.cluster)
        fits = group_size(self.batch_size, least=least, most=fewer, room=fewer)
        self.most = fits or self._all

    def lift(self) -> None:
        """There is room for more."""
        self.most = self._all

    @property
    def pause(self) -> float:
        """Seconds between two looks at whether there is room for more."""
        if not self._misses:
            return _GROWTH_SECONDS
        return min(_AGAIN_SECONDS * 2.0 ** (self._misses - 1), _MOST_SECONDS)


@dataclass
class Waiting:
    """For the room that the next group needs.

    Args:
        cluster: `workers`, perhaps `min_workers`, and `wait` in seconds.
        batch_size: of the global batch.
        look: `room_now`, with nothing held.
        notify: told in one line what is waited for.
        clock, pause: of seconds.
    """

    cluster: Config
    batch_size: int
    look: Callable[[], Room]
    notify: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    pause: Callable[[float], None] = time.sleep

    def until(self, asked: Callable[[], bool]) -> int:
        """The size of the next group; 0 if it is asked to stop before there is room.

        Raises:
            UserError: nodes with room for the fewest workers do not come within `wait`.
        """
        begun, told = self.clock(), ""
        while not asked():
            room, waited = self.look(), self.clock() - begun
            size, later = self._size(room.free), self._size(room.whole)
            # What another run holds may become free, or not: smaller groups start.
            if size and (size == later or waited > _SETTLE):
                return size
            if not later and waited > float(self.cluster["wait"]):
                raise UserError(self._missed())
            missing = "that others hold" if later else "on nodes that are gone"
            if missing != told and waited > _SETTLE:
                least = least_workers(self.cluster)
                self.notify(f"waiting for room for {least} workers, {missing}")
                told = missing
            self.pause(_EVERY)
        return 0

    def _size(self, room: int) -> int:
        least, most = least_workers(self.cluster), int(self.cluster["workers"])
        return group_size(self.batch_size, least=least, most=most, room=room)

    def _missed(self) -> str:
        return (
            f"nodes with room for {least_workers(self.cluster)} workers did not come "
            f"within cluster.wait={self.cluster['wait']} s; start them and give the "
            "same command again, or lower cluster.min_workers"
        )
