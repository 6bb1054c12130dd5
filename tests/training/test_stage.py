import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rrl_dist.core import interrupts
from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import read_json
from rrl_dist.data.views import Views
from rrl_dist.models.artefact import load_artefact
from rrl_dist.training.build import load_classifier, load_encoder
from rrl_dist.training.checkpoint import Checkpoints
from rrl_dist.training.journal import TrainingDivergedError, read_metrics
from rrl_dist.training.stage import train_stage
from rrl_dist.training.wishes import Request
from tests.training.stages import (
    BATCH,
    StoppedError,
    differences,
    identified,
    last_checkpoint,
    measured,
    pretraining,
    probing,
    stop_and_go_on,
    train,
    untrained,
)


def test_a_stage_leaves_a_model_metrics_and_checkpoints(teacher: Path) -> None:
    encoder, artefact = load_encoder(teacher)
    state = last_checkpoint(teacher)
    assert state["step"] == 12
    for name, value in encoder.state_dict().items():
        assert torch.equal(state["objective"][f"encoder.{name}"], value), name
    assert not any("projector" in name for name in encoder.state_dict())
    assert artefact.classes == ()
    lines = read_metrics(teacher / "metrics.jsonl")
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 10, 12]
    assert [line["epoch"] for line in lines] == [step / 6 for step in range(2, 13, 2)]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert lines[-1]["lr"] < max(line["lr"] for line in lines)
    kept = Checkpoints(teacher / "checkpoints", pytest.fail).commits()
    assert [commit.step for commit in kept] == [12, 8]
    files = {path.name for path in (teacher / "checkpoints").glob("*step-*")}
    assert files == kept[0].files | kept[1].files


@pytest.mark.parametrize("arm", ["simclr", "deacl"])
def test_a_run_that_was_stopped_ends_as_if_it_had_not_been(
    tmp_path: Path, teacher: Path, arm: str
) -> None:
    known = teacher if arm == "deacl" else None
    stage = pretraining(arm, teacher=known, probed=True)
    train(stage, tmp_path / "whole")
    assert stop_and_go_on(stage, tmp_path / "stopped") == 6
    assert differences(tmp_path / "whole", tmp_path / "stopped") == []
    probed = [
        line["step"] for line in measured(tmp_path / "whole") if "knn_acc" in line
    ]
    assert probed == [6, 12]


@pytest.mark.parametrize(
    "arm", [pytest.param("simclr", marks=pytest.mark.slow), "deacl"]
)
def test_going_on_in_the_middle_of_an_epoch(
    tmp_path: Path, teacher: Path, arm: str
) -> None:
    known = teacher if arm == "deacl" else None
    stage = pretraining(arm, teacher=known)
    train(stage, tmp_path / "whole")
    assert stop_and_go_on(stage, tmp_path / "stopped") == 4
    assert differences(tmp_path / "whole", tmp_path / "stopped") == []


def test_going_on_by_adam_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    stage = pretraining("simclr")
    optimizer = {
        "_target_": "rrl_dist.training.optim.adamw",
        "beta1": 0.9,
        "beta2": 0.99,
    }
    optim = {**stage["optim"], "optimizer": optimizer, "decay_norm_and_bias": False}
    stage = identified({**stage, "optim": {**optim, "lr": 1e-3}})
    train(stage, tmp_path / "whole")
    assert stop_and_go_on(stage, tmp_path / "stopped") == 4
    assert differences(tmp_path / "whole", tmp_path / "stopped") == []


def test_probes_do_not_touch_what_is_trained(tmp_path: Path, teacher: Path) -> None:
    train(pretraining("simclr", probed=True), tmp_path)
    found, expected = load_artefact(tmp_path), load_artefact(teacher)
    assert found.sha256 == expected.sha256


def test_two_runs_are_equal_and_another_seed_is_not(
    tmp_path: Path, teacher: Path
) -> None:
    torch.manual_seed(77)  # no global generator matters
    train(pretraining("simclr"), tmp_path / "again")
    assert differences(teacher, tmp_path / "again") == []
    train(pretraining("simclr", "seed=1"), tmp_path / "other")
    changed = differences(teacher, tmp_path / "other")
    weights = [name for name in changed if name.endswith("weight")]
    assert len(weights) > 5
    first, other = measured(teacher), measured(tmp_path / "other")
    assert first[0]["loss"] != other[0]["loss"]


def test_each_epoch_sees_each_sample_once_in_an_order_and_views_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, list[int], torch.Tensor]] = []
    make = Views.__call__

    def noted(self, images, index, *, seed, epoch):  # type: ignore[no-untyped-def]
        views = make(self, images, index, seed=seed, epoch=epoch)
        seen.append((epoch, index.tolist(), views[0]))
        return views

    monkeypatch.setattr(Views, "__call__", noted)
    train(pretraining("simclr"), tmp_path / "whole")
    assert [epoch for epoch, _, _ in seen] == [0] * 6 + [1] * 6
    orders = [[i for _, batch, _ in seen[at : at + 6] for i in batch] for at in (0, 6)]
    for order in orders:
        assert len(set(order)) == len(order) == 6 * BATCH
    assert orders[0] != orders[1]
    first, second = (
        {
            i: v
            for _, b, views in seen[at : at + 6]
            for i, v in zip(b, views, strict=True)
        }
        for at in (0, 6)
    )
    both = first.keys() & second.keys()
    changed = [not torch.equal(first[i], second[i]) for i in both]
    assert sum(changed) > 0.9 * len(both)
    # Gone on with in the middle of an epoch, the rest of it is what was left.
    whole, seen[:] = list(seen), []
    stop_and_go_on(pretraining("simclr"), tmp_path / "stopped")
    found = [(epoch, batch) for epoch, batch, _ in seen]
    expected = [(epoch, batch) for epoch, batch, _ in whole]
    assert found == expected[:6] + expected[4:]


def test_a_finished_run_is_not_trained_again(tmp_path: Path, teacher: Path) -> None:
    stage = pretraining("simclr")
    train(stage, tmp_path)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    (tmp_path / "model.safetensors").unlink()
    train(stage, tmp_path)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before
    assert load_artefact(tmp_path).sha256 == load_artefact(teacher).sha256


def test_checkpoints_of_other_settings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        train(pretraining("simclr"), tmp_path, stop_after_epoch=0)
    with pytest.raises(UserError, match=r"checkpoints of other settings.*name="):
        train(pretraining("simclr", "seed=1"), tmp_path)
    assert last_checkpoint(tmp_path)["step"] == 4
    assert not (tmp_path / "model.safetensors").exists()


def test_a_damaged_checkpoint_costs_the_steps_since_the_one_before(
    tmp_path: Path, teacher: Path
) -> None:
    stage = pretraining("simclr")
    train(stage, tmp_path)
    (damaged,) = (tmp_path / "checkpoints").glob("step-00000012-*.pt")
    damaged.write_bytes(damaged.read_bytes()[:-7])
    news: list[str] = []
    train(stage, tmp_path, notify=news.append)
    assert len(news) == 1
    assert "step-00000012-00000001 is damaged" in news[0]
    assert differences(teacher, tmp_path) == []


def test_a_head_is_put_on_an_encoder_that_stays_as_it_was(tmp_path: Path) -> None:
    encoder, _ = load_encoder(untrained(tmp_path / "encoder"))
    train(probing(tmp_path / "encoder"), tmp_path)
    model, artefact = load_classifier(tmp_path)
    for name, value in encoder.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], value), name
    assert artefact.classes == tuple("0123456789")
    lines = measured(tmp_path)
    assert lines[-1]["loss"] < lines[0]["loss"] - 0.05
    assert lines[-1]["accuracy"] > lines[0]["accuracy"] + 0.05
    # A classifier serves as an encoder too.
    inside, _ = load_encoder(tmp_path)
    for name, value in encoder.state_dict().items():
        assert torch.equal(inside.state_dict()[name], value), name


def test_a_distilled_model_names_its_teacher_by_hash(
    tmp_path: Path, teacher: Path
) -> None:
    train(pretraining("deacl", "arms.deacl.train.epochs=1", teacher=teacher), tmp_path)
    training = load_artefact(tmp_path).training
    assert training["teacher_sha256"] == load_artefact(teacher).sha256
    assert str(teacher) not in str(read_json(tmp_path / "model.json"))


def test_a_batch_larger_than_the_split_is_refused(tmp_path: Path) -> None:
    stage = pretraining("simclr", "arms.simclr.train.batch_size=2000")
    with pytest.raises(UserError, match="more than the 1293 training images") as caught:
        train(stage, tmp_path)
    assert "train.batch_size=1293" in str(caught.value)


@pytest.mark.parametrize("change", ["epochs=0", "max_steps=0"])
def test_a_run_without_a_step_is_refused(tmp_path: Path, change: str) -> None:
    stage = pretraining("simclr", f"arms.simclr.train.{change}")
    with pytest.raises(UserError, match=r"train\.epochs and train\.max_steps"):
        train(stage, tmp_path)


def test_max_steps_ends_a_run_early(tmp_path: Path) -> None:
    train(pretraining("simclr", "arms.simclr.train.max_steps=3"), tmp_path)
    assert last_checkpoint(tmp_path)["step"] == 3
    lines = measured(tmp_path)
    assert [line["step"] for line in lines] == [2, 3]
    # The schedule is that of the shorter run: 10 % of it rise, 90 % fall.
    peak, done = 0.05 * BATCH / 256, (2 / 3 - 0.1) / 0.9
    expected = peak * (1 + math.cos(math.pi * done)) / 2
    assert lines[-1]["lr"] == pytest.approx(expected, rel=1e-9)


def test_a_loss_that_is_not_finite_names_its_step(tmp_path: Path) -> None:
    stage = pretraining("simclr", "arms.simclr.optim.lr=1e12")
    with pytest.raises(TrainingDivergedError) as caught:
        train(stage, tmp_path)
    found = re.match(r"step (\d+): (\w+) is (nan|-?inf)", str(caught.value))
    assert found is not None
    assert 1 < int(found[1]) <= 12
    assert not (tmp_path / "model.safetensors").exists()


def test_a_teacher_that_is_needed_or_not_there_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="DeACL distils a teacher"):
        train(pretraining("deacl"), tmp_path)
    with pytest.raises(UserError, match="no model at"):
        train(pretraining("deacl", teacher=tmp_path / "none"), tmp_path)


def asked_after(calls: int) -> Callable[[], bool]:
    left = [calls]

    def asked() -> bool:
        left[0] -= 1
        return left[0] <= 0

    return asked


def test_a_stop_at_a_saved_step_keeps_what_it_was_judged_by(tmp_path: Path) -> None:
    stage = pretraining("simclr", probed=True)
    settings = {**stage["train"]["checkpoints"], "best": "knn_acc"}
    stage["train"] = {**stage["train"], "checkpoints": settings}
    with pytest.raises(interrupts.StoppedError, match="after step 6 of 12"):
        train_stage(
            stage,
            tmp_path,
            device=torch.device("cpu"),
            after_epoch=lambda epoch: None,
            notify=pytest.fail,
            wishes=Request(asked_after(6)),
        )
    (line,) = [m for m in read_metrics(tmp_path / "metrics.jsonl") if "knn_acc" in m]
    newest, before = Checkpoints(tmp_path / "checkpoints", pytest.fail).commits()
    assert (newest.step, newest.measured["knn_acc"]) == (6, line["knn_acc"])
    assert (before.step, before.measured) == (4, {})
