"""Killed in the middle of an epoch and started again: the same to the last bit.

Each run is the command itself, DeACL with its attack and batch norm on images of
digits, and ends with the same model and the same losses as one that nobody killed.
"""

from importlib.util import find_spec
from pathlib import Path

import pytest

from rrl_dist.core.storage import read_json
from tests.cli.harness import kill_when, rrl
from tests.training.stages import measured, untrained

pytestmark = pytest.mark.slow

STEPS, EPOCH = 54, 10  # 1293 images in batches of 120
COMMAND = (
    "pretrain",
    "data=digits",
    "data.size=8",
    "model=tiny_cnn",
    "model.backbone.width=4",
    "model.sync_bn=false",  # what each worker's batch norm keeps is averaged
    "objective=deacl",
    "objective.steps=2",
    "views=digits_weak",
    "optim=sgd",
    "probe=none",
    "cluster.threads=1",
    "train.batch_size=120",
    "train.epochs=6",
    f"train.max_steps={STEPS}",
    "train.checkpoint_every=7",
    "train.log_every=1",
)
FAST = "ffcv" if find_spec("ffcv") is not None else "auto"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all runs are; they share a teacher and the .beton file."""
    folder = tmp_path_factory.mktemp("resume")
    untrained(folder / "teacher")
    return folder


def command(folder: Path, name: str, *where: str) -> tuple[str, ...]:
    return (*COMMAND, f"name={name}", f"teacher={folder / 'teacher'}", *where)


def stage(folder: Path, name: str) -> Path:
    (found,) = (folder / "runs" / name / "stages").glob("pretrain-*")
    return found


def whole(folder: Path, name: str, *where: str) -> None:
    rrl(folder, *command(folder, name, *where))


def killed(folder: Path, name: str, *where: str) -> None:
    """Killed in its second epoch, and started again."""
    arguments = command(folder, name, *where)
    second = f"runs/{name}/stages/*/checkpoints/step-00000014-*.json"
    kill_when(folder, second, arguments)
    found = stage(folder, name)
    assert not (found / "model.safetensors").exists()
    step = read_json(max((found / "checkpoints").glob("*.json")))["step"]
    assert 0 < step < STEPS
    assert step % EPOCH != 0, "not in the middle of an epoch"
    rrl(folder, *arguments)


def equal(folder: Path, one: str, other: str) -> None:
    a, b = stage(folder, one), stage(folder, other)
    assert len(measured(a)) == STEPS
    assert measured(a) == measured(b)
    for name in ("model.safetensors", "model.json"):
        assert (a / name).read_bytes() == (b / name).read_bytes(), name


@pytest.mark.long
def test_one_worker(folder: Path) -> None:
    whole(folder, "whole", "cluster=debug", "loader=memory")
    killed(folder, "memory", "cluster=debug", "loader=memory")
    equal(folder, "whole", "memory")


@pytest.mark.long
def test_one_worker_of_ray(folder: Path) -> None:
    if not (folder / "runs/whole").exists():
        whole(folder, "whole", "cluster=debug", "loader=memory")
    # The pixels of a file are those of memory, so the loaders agree as well.
    killed(folder, "ray", "cluster=local", f"loader={FAST}")
    equal(folder, "whole", "ray")


@pytest.mark.long
def test_three_workers(folder: Path) -> None:
    three = ("cluster=local", "cluster.workers=3")
    whole(folder, "whole-3", *three, "loader=memory")
    killed(folder, "fast-3", *three, f"loader={FAST}")
    equal(folder, "whole-3", "fast-3")


def test_sharded_state(folder: Path) -> None:
    strategy = ("strategy=deepspeed_zero2", "strategy.precision=bf16", "optim=adamw")
    where = ("cluster=debug", "loader=memory", "optim.clip_grad=1.0", *strategy)
    whole(folder, "whole-zero", *where)
    killed(folder, "zero", *where)
    equal(folder, "whole-zero", "zero")
