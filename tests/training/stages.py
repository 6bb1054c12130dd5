"""Small training stages, composed from the project's own configurations."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch.nn.modules.batchnorm import _BatchNorm

from rrl_dist.cli.app import CONFIGS
from rrl_dist.core.collectives import barrier, world_size
from rrl_dist.core.storage import value_hash
from rrl_dist.models.artefact import save_artefact
from rrl_dist.stages import pretrain_stage, probe_stage
from rrl_dist.training.build import build, build_encoder
from rrl_dist.training.checkpoint import Checkpoints
from rrl_dist.training.journal import read_metrics
from rrl_dist.training.stage import train_stage

Stage = dict[str, Any]

BATCH = 192  # six steps an epoch, for 1, 2 and 3 workers
SMALL = (
    "experiment=demo",
    "cluster=debug",
    "cluster.threads=1",
    "loader=memory",
    "data.size=8",
    "views@protocol.views=none",  # moved by 4 of 8 px, digits are not to be told apart
    "model.backbone.width=4",
    "arms.simclr.objective.projector.hidden=16",
    "arms.simclr.objective.projector.out=8",
    *(
        f"{where}.train.{key}={value}"
        for where in ("arms.simclr", "arms.deacl", "protocol")
        for key, value in (
            ("batch_size", BATCH),
            ("epochs", 2),
            ("log_every", 2),
            ("checkpoint_every", 4),
        )
    ),
    "arms.deacl.objective.steps=2",
    "arms.simclr.optim.lr=0.05",
    "probe.every_epochs=1",
    "probe.bank_images=150",
    "probe.val_images=40",
    "probe.robust_images=20",
    "probe.attack.steps=2",
    "probe.attack.micro_batch=20",
)


def composed(*overrides: str) -> dict[str, Any]:
    """The demo's configuration, made small, as the command line resolves it."""
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        config = compose("run", overrides=[*SMALL, *overrides])
    plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def identified(stage: Stage) -> Stage:
    return {**stage, "identity": value_hash(stage)}


def pretraining(
    arm: str, *overrides: str, teacher: Path | None = None, probed: bool = False
) -> Stage:
    stage = pretrain_stage(composed(*overrides), arm, teacher)
    return identified(stage if probed else {**stage, "probe": None})


def probing(encoder: Path, *overrides: str) -> Stage:
    return identified(probe_stage(composed(*overrides), encoder))


def untrained(folder: Path, *overrides: str) -> Path:
    """An encoder whose features are a random projection of about unit size."""
    config = composed(*overrides)
    model = config["model"]
    encoder = build_encoder(model, seed=0).train()
    for module in encoder.modules():
        if isinstance(module, _BatchNorm):
            module.momentum = 1.0  # one batch sets the statistics
    images = build(config["data"]).split("train").images[:256]
    with torch.no_grad():
        encoder(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    save_artefact(folder, encoder, model=model, classes=(), training={})
    return folder


class StoppedError(Exception):
    """What a test stops a run with."""


def train(
    stage: Stage,
    folder: Path,
    *,
    stop_after_epoch: int | None = None,
    notify: Callable[[str], None] = lambda line: None,
) -> None:
    """`train_stage` on the CPU; stopped from outside the loop if asked for."""

    def after_epoch(epoch: int) -> None:
        if epoch == stop_after_epoch:
            raise StoppedError

    train_stage(
        stage,
        folder,
        device=torch.device("cpu"),
        after_epoch=after_epoch,
        notify=notify,
    )


def stop_and_go_on(stage: Stage, folder: Path) -> int:
    """Stop at the end of epoch 0, two steps after a checkpoint; then go on.

    Returns the step of that checkpoint.
    """
    try:
        train(stage, folder, stop_after_epoch=0)
    except StoppedError:
        barrier()  # rank 0 makes checkpoints of all parts
        step = last_checkpoint(folder)["step"]
        train(stage, folder)
        return int(step)
    raise AssertionError("the run was not stopped")


def stop_workers(stage: Stage, folder: Path) -> None:
    """Each of several workers stops at the end of epoch 0."""
    with suppress(StoppedError):
        train(stage, folder, stop_after_epoch=0)


def train_workers(stage: Stage, folder: Path, stopped: bool) -> int:
    """What each of several workers does."""
    if stopped:
        return stop_and_go_on(stage, folder)
    train(stage, folder)
    return world_size()


def last_checkpoint(folder: Path) -> dict[str, Any]:
    state = Checkpoints(folder / "checkpoints", pytest.fail).load()
    assert state is not None
    return state


def flat(state: Any, name: str = "") -> dict[str, Any]:
    """Nested state as one dict of leaves by their path."""
    if isinstance(state, dict):
        items = [(str(key), value) for key, value in state.items()]
    elif isinstance(state, list | tuple):
        items = [(str(place), value) for place, value in enumerate(state)]
    else:
        return {name: state}
    return {
        k: v for key, value in items for k, v in flat(value, f"{name}/{key}").items()
    }


def differences(one: Path, other: Path) -> list[str]:
    """What differs, bit for bit, between all that two runs left."""
    a, b = flat(last_checkpoint(one)), flat(last_checkpoint(other))
    assert len(a) > 20
    found = sorted(a.keys() ^ b.keys())
    for key in a.keys() & b.keys():
        same = a[key] == b[key]
        if not (bool(same.all()) if isinstance(same, torch.Tensor) else same):
            found.append(key)
    for name in ("model.safetensors", "model.json"):
        if (one / name).read_bytes() != (other / name).read_bytes():
            found.append(name)
    if measured(one) != measured(other):
        found.append("metrics.jsonl")
    return found


def measured(folder: Path) -> list[dict[str, Any]]:
    """The metrics but for the pace."""
    return [
        {k: v for k, v in line.items() if k != "steps_per_second"}
        for line in read_metrics(folder / "metrics.jsonl")
    ]
