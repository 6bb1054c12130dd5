"""What a training stage is told, and what makes it another stage."""

from pathlib import Path
from typing import Any

import pytest
import torch

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import read_json
from rrl_dist.models.artefact import Head, save_artefact
from rrl_dist.stages import check_init, identifying, pretrain_stage, probe_stage
from rrl_dist.training.build import load_classifier, load_encoder
from rrl_dist.training.projector import fresh_projector
from tests.composing import compose
from tests.training.stages import Stage, composed, identified, train, untrained

# Of another data set, which an encoder that is trained does not take over.
OTHER = ("data.mean=[0.9,0.8,0.7]", "data.std=[0.1,0.1,0.1]", "data.classes=[6,7,8,9]")


def fine_tuning(encoder: Path, *overrides: str) -> Stage:
    """Supervised training of a whole encoder, for one step."""
    objective = compose("pretrain", "objective=supervised")["objective"]
    config = composed(*overrides, "arms.simclr.train.max_steps=1")
    own = {**config["arms"]["simclr"], "objective": objective, "split": "train"}
    own |= {"views": config["protocol"]["views"]}
    config |= {"arms": {"a": own}, "init": str(encoder), "probe": None}
    return pretrain_stage(config, "a", None)


def test_a_probe_on_other_classes_keeps_the_encoders_own_mean_and_std(
    tmp_path: Path,
) -> None:
    folder = untrained(tmp_path / "encoder")
    encoder, artefact = load_encoder(folder)
    config = composed(*OTHER, "protocol.train.max_steps=2")
    train(identified(probe_stage(config, folder)), tmp_path / "probe")
    model, probed = load_classifier(tmp_path / "probe")
    assert probed.classes == ("6", "7", "8", "9")
    assert probed.model == artefact.model
    assert probed.model["mean"] != config["data"]["mean"]
    for name, value in encoder.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], value), name


def test_fine_tuning_begins_with_the_weights_it_is_given(tmp_path: Path) -> None:
    folder = untrained(tmp_path / "encoder")
    before, artefact = load_encoder(folder)
    stage = identified(fine_tuning(folder, *OTHER))
    optim = {**stage["optim"], "lr": 0.0}
    train({**stage, "optim": optim}, tmp_path / "still")
    train(stage, tmp_path / "moved")
    still, _ = load_encoder(tmp_path / "still")
    moved, _ = load_encoder(tmp_path / "moved")
    weights = dict(before.named_parameters())
    assert all(torch.equal(p, weights[n]) for n, p in still.named_parameters())
    assert not all(torch.equal(p, weights[n]) for n, p in moved.named_parameters())
    about = read_json(tmp_path / "moved" / "model.json")
    assert about["model"] == artefact.model
    assert about["training"]["encoder"]["sha256"] == artefact.sha256


def test_other_weights_to_begin_with_are_another_stage(tmp_path: Path) -> None:
    one = untrained(tmp_path / "one")
    other = untrained(tmp_path / "other", "data.mean=[0.1,0.1,0.1]")
    same = untrained(tmp_path / "same")
    found = [identifying(fine_tuning(folder)) for folder in (one, other, same)]
    assert found[0] == found[2]
    assert found[0] != found[1]
    assert found[0] != identifying({**fine_tuning(one), "init": None})


def test_a_stage_does_not_depend_on_folders_and_display() -> None:
    def identity(*overrides: str) -> object:
        return identifying(pretrain_stage(composed(*overrides), "simclr", None))

    where = ("storage=/a", "betons=/b", "cluster=local", "cluster.workers=3")
    shown = ("arms.simclr.train.log_every=7", "arms.simclr.train.micro_batch=16")
    assert identity() == identity(*where, *shown)
    for changed in ("seed=1", "arms.simclr.optim.lr=0.2", "strategy.precision=bf16"):
        assert identity() != identity(changed)


@pytest.mark.parametrize("around", [(), ("tarrl",), ("tarrl", "adversarial")])
def test_a_teachers_weights_and_weights_to_begin_with_are_refused(
    around: tuple[str, ...],
) -> None:
    objective = compose("pretrain", "objective=deacl")["objective"]
    key = "objective" + ".base" * len(around) + ".start_from_teacher"
    for name in around:
        outer = compose("pretrain", f"objective={name}")["objective"]
        objective = {**outer, "base": objective}
    with pytest.raises(UserError, match=f"set {key}=false, or leave out init="):
        check_init(objective)


def test_objectives_without_a_teacher_may_begin_anywhere() -> None:
    for name in ("simclr", "tarrl", "supervised"):
        check_init(compose("pretrain", f"objective={name}")["objective"])
    deacl = compose("pretrain", "objective=deacl", "objective.start_from_teacher=false")
    check_init(deacl["objective"])


def test_what_a_teachers_cache_keeps_is_no_other_stage(tmp_path: Path) -> None:
    teacher = untrained(tmp_path / "teacher")

    def identity(*overrides: str) -> object:
        return identifying(pretrain_stage(composed(*overrides), "deacl", teacher))

    cached = "arms.deacl.objective.cache_teacher=true"
    assert identity() == identity(cached)
    assert identity() != identity("arms.deacl.objective.teacher_sees=image")


def test_another_projector_of_the_teacher_is_another_stage(tmp_path: Path) -> None:
    found = []
    for seed in (0, 1, None):
        folder = untrained(tmp_path / str(seed))
        if seed is not None:
            model, (encoder, _) = composed()["model"], load_encoder(folder)
            torch.manual_seed(seed)
            objective = composed()["arms"]["simclr"]["objective"]
            head = fresh_projector(objective, encoder.num_features)
            assert head is not None
            kept = Head(head.state_dict(), objective["projector"])
            about: dict[str, Any] = {"model": model, "classes": (), "training": {}}
            save_artefact(folder, encoder, **about, projector=kept)
        found.append(identifying(pretrain_stage(composed(), "deacl", folder)))
    assert found[0]["teacher"] == found[1]["teacher"] == found[2]["teacher"]
    assert found[0] != found[1]
    assert found[2]["teacher_projector"] is None
