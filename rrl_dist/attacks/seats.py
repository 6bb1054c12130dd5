"""Which trial of an attack sits in which row of its micro-batches."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from rrl_dist.attacks.balls import as_column
from rrl_dist.attacks.board import Board
from rrl_dist.attacks.trials import Method, Packing


class Seats:
    """Which trial sits in which row."""

    def __init__(self, board: Board, packing: Packing) -> None:
        self.board, self.packing = board, packing
        self.queue = self._waiting()
        self.taken: list[tuple[int, int] | None] = []
        self.kept: list[int] = []
        self.fresh: list[int] = []
        self.head: tuple[int, int] | None = next(self.queue, None)

    def _waiting(self) -> Iterator[tuple[int, int]]:
        """By number, then by sample: most are broken before their last trial."""
        for number in range(self.board.trials):
            for sample in range(self.board.count):
                if self.board.needs(sample, number):
                    yield sample, number

    def fill(self) -> bool:
        """Give free rows to those who wait; whether any row is taken."""
        if all(held is None for held in self.taken):
            self.taken = [None] * self.packing.rows
        entering: list[tuple[int, int]] = []
        free = self.taken.count(None)
        while len(entering) < free and self._may_enter(entering):
            assert self.head is not None
            entering.append(self.head)
            self.head = next(self.queue, None)
        self._seat(entering)
        return any(held is not None for held in self.taken)

    def _seat(self, entering: list[tuple[int, int]]) -> None:
        """Put them into free rows, after whole micro-batches of those are given up."""
        free = [row for row, held in enumerate(self.taken) if held is None]
        spare = (len(free) - len(entering)) // self.packing.size * self.packing.size
        given_up = set(free[len(free) - spare :])
        self.kept = [row for row in range(len(self.taken)) if row not in given_up]
        self.taken = [self.taken[row] for row in self.kept]
        free = [row for row, held in enumerate(self.taken) if held is None]
        self.fresh = free[: len(entering)]
        for row, held in zip(self.fresh, entering, strict=True):
            self.taken[row] = held

    def _may_enter(self, entering: list[tuple[int, int]]) -> bool:
        # Broken since it came to the head.
        while self.head is not None and not self.board.needs(*self.head):
            self.head = next(self.queue, None)
        if self.head is None:
            return False
        running = [held for held in (*self.taken, *entering) if held is not None]
        return not self.packing.in_turn or all(h[1] == self.head[1] for h in running)

    def seated(self, method: Method, state: Any) -> Any:
        """The state of the rows that were kept, with the fresh ones begun."""
        device = self.board.samples.y.device
        running = len(self.fresh) < len(self.taken) - self.taken.count(None)
        if running and len(self.kept) < len(state.done):
            kept = torch.tensor(self.kept, device=device)
            state = type(state)(*(column.index_select(0, kept) for column in state))
        if not self.fresh:
            return state
        # Free rows copy a taken one: the model gets an image, and nobody reads it.
        filler = next(held for held in self.taken if held is not None)
        held = [filler if seat is None else seat for seat in self.taken]
        place, number = torch.tensor(held, device=device).unbind(1)
        # All rows at once: one row alone may round otherwise.
        begun = method.begin(self.board.samples.rows(place), number)
        if not running:
            return begun
        new = torch.zeros(len(held), dtype=torch.bool)
        new[self.fresh] = True
        new = new.to(device)
        columns = zip(begun, state, strict=True)
        return type(state)(*(torch.where(as_column(new, o), n, o) for n, o in columns))

    def leave(self, ended: list[bool]) -> Iterator[tuple[int, int, int]]:
        """Free the rows of trials that have ended, giving (row, sample, number), and of
        those that can change nothing any more."""
        for row, held in enumerate(self.taken):
            if held is not None and ended[row]:
                self.taken[row] = None
                yield row, *held
        for row, held in enumerate(self.taken):
            if held is not None and not self.board.needs(*held):
                self.taken[row] = None

    def ahead(self) -> tuple[Tensor, Tensor] | None:
        """For whom free rows may look ahead, and how far; see `LooksAhead`."""
        taken = [row for row, held in enumerate(self.taken) if held is not None]
        free = [row for row, held in enumerate(self.taken) if held is None]
        if not free or self.packing.in_turn:
            return None
        leader, lead = list(range(len(self.taken))), [0] * len(self.taken)
        for place, row in enumerate(free):
            leader[row], lead[row] = taken[place % len(taken)], place // len(taken) + 1
        device = self.board.samples.y.device
        return torch.tensor(leader, device=device), torch.tensor(lead, device=device)
