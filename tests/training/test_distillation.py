"""DeACL from teachers on disk, as stages train it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rrl_dist.core.errors import UserError
from rrl_dist.models.artefact import load_artefact
from rrl_dist.training.build import load_teacher
from rrl_dist.training.journal import read_metrics
from rrl_dist.training.rehearsal import UNTRAINED, rehearse
from tests.composing import compose, steps
from tests.gloo import run_workers
from tests.training.stages import (
    Stage,
    differences,
    flat,
    last_checkpoint,
    pretraining,
    stop_and_go_on,
    train,
    train_workers,
)

SSL = ("simclr", "moco", "byol", "simsiam", "barlow", "vicreg")


def distilling(teacher: Path, *options: str) -> Stage:
    chosen = [f"arms.deacl.objective.{option}" for option in options]
    return pretraining("deacl", *chosen, teacher=teacher)


@pytest.mark.parametrize("name", SSL)
def test_any_ssl_method_teaches_by_features_and_projections(
    name: str, tmp_path: Path
) -> None:
    chosen = [f"objective@arms.simclr.objective={name}", "arms.simclr.optim.lr=0.05"]
    if name == "moco":
        chosen.append("arms.simclr.objective.queue_size=256")
    train(pretraining("simclr", "arms.simclr.train.max_steps=2", *chosen), tmp_path)
    state = flat(last_checkpoint(tmp_path)["objective"])
    head = load_teacher(tmp_path).projector
    assert head is not None
    for key, value in head.state_dict().items():
        assert torch.equal(state[f"/projector.{key}"], value), key
    two = "arms.deacl.train.max_steps=2"
    stage = pretraining(
        "deacl", two, "arms.deacl.objective.projector=true", teacher=tmp_path
    )
    train({**stage, "train": {**stage["train"], "log_every": 1}}, tmp_path / "student")
    student = load_artefact(tmp_path / "student")
    assert student.training["teacher_sha256"] == load_artefact(tmp_path).sha256
    lines = read_metrics(tmp_path / "student" / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2]
    assert lines[0]["loss"] != lines[1]["loss"]
    assert load_teacher(tmp_path / "student").projector is None


def weights(folder: Path) -> str:
    return load_artefact(folder).sha256


def test_kept_features_change_nothing(teacher: Path, tmp_path: Path) -> None:
    """Two epochs, each of which leaves out other samples."""
    train(distilling(teacher, "teacher_sees=image"), tmp_path / "plain")
    kept = distilling(teacher, "teacher_sees=image", "cache_teacher=true")
    train(kept, tmp_path / "kept")
    assert weights(tmp_path / "plain") == weights(tmp_path / "kept")
    train(distilling(teacher), tmp_path / "views")
    assert weights(tmp_path / "views") != weights(tmp_path / "kept")


def test_a_stopped_run_goes_on_with_an_empty_cache(
    teacher: Path, tmp_path: Path
) -> None:
    stage = distilling(teacher, "teacher_sees=image", "cache_teacher=true")
    train(stage, tmp_path / "whole")
    assert stop_and_go_on(stage, tmp_path / "stopped") == 4
    assert differences(tmp_path / "whole", tmp_path / "stopped") == []


@pytest.mark.slow
def test_workers_that_meet_other_samples_each_epoch_keep_what_they_meet(
    teacher: Path, tmp_path: Path
) -> None:
    folders = {"false": tmp_path / "plain", "true": tmp_path / "kept"}
    for kept, folder in folders.items():
        stage = distilling(teacher, "teacher_sees=image", f"cache_teacher={kept}")
        run_workers(2, train_workers, stage, folder, False)
    assert weights(folders["true"]) == weights(folders["false"])


@pytest.mark.parametrize(
    ("taught_by", "wrong"), [("simclr", False), ("moco", False), ("supervised", True)]
)
def test_a_teacher_to_come_is_known_to_have_a_projector_or_not(
    taught_by: str, wrong: bool
) -> None:
    """Before a thousand epochs of it, not after."""
    stage = pretraining(
        "deacl", "arms.deacl.objective.projector=true", teacher=UNTRAINED
    )
    own = compose("pretrain", f"objective={taught_by}")["objective"]
    stage = {**stage, "teacher_objective": own}
    shape: dict[str, Any] = {"size": 8, "num_classes": 10, "workers": 1}
    if not wrong:
        rehearse("pretrain-deacl", stage, **shape)
        return
    with pytest.raises(UserError, match=r"pretrain-deacl: .*comes without one"):
        rehearse("pretrain-deacl", stage, **shape)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["resnet50", "wrn28_10", "wrn34_10"])
def test_large_networks_take_two_steps(model: str) -> None:
    config = compose(
        "pretrain",
        f"model={model}",
        "objective=deacl",
        "objective.steps=1",
        "views=weak",
        "optim=sgd",
        "strategy=single",
    )
    steps({**config, "teacher": "any"}, model=config["model"], size=8)
