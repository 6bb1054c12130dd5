"""`cluster=debug`: a debugger stops in every method's code, in this very thread."""

import bdb
import inspect
import os
import threading
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from types import FrameType, FunctionType

import pytest

from rrl_dist.stages import given_teacher, pretrain_stage
from rrl_dist.training.cluster import session
from rrl_dist.training.launch import launch
from tests.composing import compose, every, views_of
from tests.training.stages import Stage, identified, untrained

METHODS = ("inner", "forward", "after_step")
ONE_STEP = (
    "cluster=debug",
    "cluster.threads=1",
    "loader=memory",
    "probe=none",
    "data=digits",
    "data.size=8",
    "model=tiny_cnn",
    "model.backbone.width=4",
    "optim=sgd",
    "train.batch_size=8",
    "train.max_steps=1",
)


class Debugger(bdb.Bdb):
    """Stops at the first line of some functions, and notes where that was."""

    def __init__(self, functions: Iterable[FunctionType]) -> None:
        super().__init__()
        self.stops: list[tuple[str, int, threading.Thread]] = []
        self.codes = [function.__code__ for function in functions]
        for code in self.codes:
            lines = {line for _, _, line in code.co_lines() if line is not None}
            body = min(lines - {code.co_firstlineno}, default=code.co_firstlineno)
            assert self.set_break(code.co_filename, body) is None

    def user_line(self, frame: FrameType) -> None:
        """Called at each stop, as the prompt of pdb is; the first is of `runcall`."""
        stop = (frame.f_code.co_name, os.getpid(), threading.current_thread())
        # A statement of several lines may come back to its first one.
        if frame.f_code in self.codes and stop not in self.stops:
            self.stops.append(stop)
        self.set_continue()


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return untrained(tmp_path_factory.mktemp("teacher"))


def stage_of(name: str, teacher: Path) -> Stage:
    chosen = (f"objective={name}", f"views={views_of(name)}", *ONE_STEP)
    config = compose("pretrain", *chosen, f"teacher={teacher}")
    keys = ("objective", "views", "optim", "train", "split")
    arm = {**{key: config[key] for key in keys}, "teacher": None}
    whole = {**config, "arms": {"a": arm}}
    return identified(pretrain_stage(whole, "a", given_teacher(whole, "a")))


def methods_of(stage: Stage) -> list[FunctionType]:
    """The functions that run as the objective's methods, without what wraps them."""
    module, _, name = stage["objective"]["_target_"].rpartition(".")
    method = getattr(import_module(module), name)
    return [inspect.unwrap(getattr(method, name)) for name in METHODS]


@pytest.mark.slow
@every("objective")
def test_it_stops_in_every_method_of_a_step(
    name: str, teacher: Path, tmp_path: Path
) -> None:
    stage = stage_of(name, teacher)
    debugger = Debugger(methods_of(stage))
    with session({"kind": "debug", "workers": 1, "threads": 1, "gpu": False}) as place:
        debugger.runcall(launch, stage, tmp_path, place, print)
    here = (os.getpid(), threading.main_thread())
    assert debugger.stops == [(method, *here) for method in METHODS]
