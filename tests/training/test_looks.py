"""How often workers look whether to end, all of them after the same steps."""

import pytest
import torch

from rrl_dist.core.collectives import rank
from rrl_dist.training.wishes import Looks, Wish
from tests.gloo import run_workers

CPU = torch.device("cpu")


class Asked:
    """Wishes that are heard from a step on."""

    def __init__(self, stopped_at: int) -> None:
        self.stopped_at, self.step, self.looks = stopped_at, 0, list[int]()

    def heard(self) -> Wish:
        self.looks.append(self.step)
        return Wish.STOP if self.step >= self.stopped_at else Wish.GO_ON

    def preempted(self) -> bool:
        return False


def looked(
    seconds: float, *, costly: bool = True, stopped_at: int = 999
) -> tuple[list[int], int]:
    """After which of 100 steps of so many seconds each this worker looks, and the one
    that it ends with."""
    now, asked = 0.0, Asked(stopped_at)
    looks = Looks(CPU, costly=costly, clock=lambda: now)
    for step in range(1, 101):
        now, asked.step = now + seconds, step
        if looks.wish(asked, step) is Wish.STOP:
            return asked.looks, step
    return asked.looks, 0


@pytest.mark.parametrize(
    ("seconds", "steps"), [(0.01, 10), (0.5, 4), (1.5, 1), (60.0, 1)]
)
def test_about_every_two_seconds_and_ten_steps_at_most(
    seconds: float, steps: int
) -> None:
    assert looked(seconds)[0] == list(range(1, 101, steps))


def test_after_each_step_where_it_costs_nothing() -> None:
    assert looked(0.01, costly=False)[0] == list(range(1, 101))


def paces_apart() -> int:
    return looked(0.3 if rank() else 0.5, stopped_at=50)[1]


@pytest.mark.slow
def test_workers_of_other_paces_end_after_the_same_step() -> None:
    assert run_workers(2, paces_apart) == [53, 53]
