"""What two processes with nothing between them take on this machine.

    python -m tests.evaluate.bench_machine

Cores share memory, cache and clock, so work in two processes at once takes more than
half of what it takes in one after the other: no evaluator can do better than that.
The fixture is described in `tests/attacks/test_attacks_fixture.py`.
"""

import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from rrl_dist.attacks.micro_batches import ON_CPU
from rrl_dist.core.storage import read_json

SHARED = Path(__file__).parents[3] / "shared" / "data"
ABOUT = SHARED / "fixtures" / "cnn_at.json"
TURNS, CALLS = 6, 50  # calls of a process in a turn


def fixture() -> tuple[nn.Module, list[tuple[Tensor, int]]]:
    """The network, and 256 images with labels."""
    from tests.attacks.test_attacks_fixture import network

    about = read_json(ABOUT)
    files = [sample["file"] for sample in about["samples"]]
    found: dict[str, Tensor] = {}
    with tarfile.open(SHARED / "cifar10-images.tar.gz") as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            handle = tar.extractfile(member) if name in files else None
            if handle is not None:
                pixels = np.array(Image.open(BytesIO(handle.read())))
                found[name] = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
    classes = about["architecture"]["classes"]
    # The same as there, of parts that workers know without this project's tests.
    scale = nn.BatchNorm2d(3, eps=0.0, affine=False)
    scale.running_mean, scale.running_var = (
        torch.full((3,), 0.48),
        torch.full((3,), 0.25**2),
    )
    _, body = network().children()
    model = nn.Sequential(scale, body).eval()
    return model, [(found[f], classes.index(f.split("/")[1])) for f in files]


def serve() -> None:
    """Do `CALLS` gradient calls for each line that comes in, and answer with one."""
    torch.set_num_threads(1)
    model, items = fixture()
    x = torch.stack([image for image, _ in items[:ON_CPU]])
    y = torch.tensor([label for _, label in items[:ON_CPU]])
    call(model, x, y)
    print("ready", flush=True)
    for _ in sys.stdin:
        for _ in range(CALLS):
            call(model, x, y)
        print("done", flush=True)


def call(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """x: [N, 3, H, W], y: [N] -> the gradient of the cross-entropies' sum at x."""
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(x), y, reduction="sum"), x)
    return gradient


class Process:
    """One that does calls when it is told to."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.evaluate.bench_machine", "serve"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            text=True,
        )

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def begin(self) -> None:
        """A turn's calls."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def wait(self) -> None:
        """Until they are done, and at first until it is there."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline(), "it ended"


def took(processes: Sequence[Process]) -> float:
    """Seconds that a turn of each takes, all at once."""
    begin = time.monotonic()
    for process in processes:
        process.begin()
    for process in processes:
        process.wait()
    return time.monotonic() - begin


@dataclass(frozen=True)
class Machine:
    """Seconds of the same work in two processes, all turns together."""

    in_turn: float
    at_once: float

    @property
    def ratio(self) -> float:
        """0.5 on a machine whose cores share nothing."""
        return self.at_once / self.in_turn


def machine(turns: int = TURNS) -> Machine:
    """In turns of one process, the other, and both, so that what else happens on the
    machine meets all of them."""
    with ExitStack() as stack:
        both = [stack.enter_context(Process()) for _ in range(2)]
        for process in both:
            process.wait()
        in_turn = at_once = 0.0
        for _ in range(turns):
            in_turn += sum(took([process]) for process in both)
            at_once += took(both)
    return Machine(in_turn, at_once)


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        found = machine()
        print(f"{found}: {found.ratio:.2f}")
