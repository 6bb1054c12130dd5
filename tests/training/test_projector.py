"""Projectors beside encoders: kept, read back, refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import read_json, write_json
from rrl_dist.models.artefact import PROJECTOR, copy_artefact, save_artefact
from rrl_dist.objectives.tarrl import TARRL
from rrl_dist.training.build import build_objective, load_teacher
from rrl_dist.training.projector import (
    fresh_projector,
    kept_projector,
    read_projector,
)
from tests.composing import compose, tiny_encoder, tiny_model

FEATURES = 16


def config(name: str) -> dict[str, Any]:
    return dict(compose("pretrain", f"objective={name}")["objective"])


def built(own: dict[str, Any]) -> Any:
    return build_objective(
        own,
        encoder=tiny_encoder(),
        teacher=None,
        num_classes=3,
        image_size=8,
        seed=0,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An encoder and VICReg's projector, whose batch norms have seen something."""
    own = config("vicreg")
    objective = built(own)
    objective.projector(torch.randn(8, FEATURES))
    save_artefact(
        tmp_path,
        objective.encoder,
        model=dict(tiny_model()),
        classes=(),
        training={},
        projector=kept_projector(objective, own),
    )
    return tmp_path


@pytest.mark.parametrize(
    "name", ["simclr", "moco", "byol", "simsiam", "barlow", "vicreg"]
)
def test_a_methods_projector_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    own = config(name)
    objective = built(own)
    head: nn.Module = objective.projector
    x = torch.randn(8, FEATURES)
    head(x)  # buffers are not the initial ones any more
    kept = kept_projector(objective, own)
    model = dict(tiny_model())
    encoder = objective.encoder
    save_artefact(
        tmp_path, encoder, model=model, classes=(), training={}, projector=kept
    )
    found = read_projector(tmp_path, FEATURES)
    assert type(found) is type(head)
    assert found is not None
    assert torch.equal(found.eval()(x), head.eval()(x))
    fresh = fresh_projector(own, FEATURES)
    assert fresh is not None
    assert fresh.state_dict().keys() == head.state_dict().keys()


def test_the_method_inside_another_has_the_projector() -> None:
    own = dict(
        compose("pretrain", "objective=tarrl", "objective/base=moco")["objective"]
    )
    objective = built(own)
    assert isinstance(objective, TARRL)
    kept = kept_projector(objective, own)
    assert kept is not None
    assert kept.config == {
        k: v for k, v in own["base"]["projector"].items() if k != "_partial_"
    }
    inside = objective.base.get_submodule("projector").state_dict()
    assert all(torch.equal(kept.state[key], value) for key, value in inside.items())


def test_a_method_without_one_keeps_none(tmp_path: Path) -> None:
    own = config("supervised")
    assert kept_projector(built(own), own) is None
    assert fresh_projector(own, FEATURES) is None
    assert fresh_projector(config("deacl"), FEATURES) is None, "its projector is a flag"


class OwnHead(nn.Linear):
    """A head of a method that someone adds."""


def test_a_head_that_could_not_be_read_again_is_not_kept() -> None:
    own = config("simclr")
    own["projector"] = {"_target_": f"{__name__}.OwnHead", "_partial_": True}
    own["projector"]["out_features"] = 4
    objective = built(own)
    assert type(objective.projector) is OwnHead
    assert kept_projector(objective, own) is None


def test_a_teacher_brings_its_projector_frozen_and_in_eval_mode(folder: Path) -> None:
    teacher = load_teacher(folder)
    assert teacher.projector is not None
    assert not any(p.requires_grad for p in teacher.projector.parameters())
    assert not any(m.training for m in teacher.projector.modules())
    h = torch.randn(4, FEATURES, requires_grad=True)
    (gradient,) = torch.autograd.grad(teacher.project(h).sum(), h)
    assert float(gradient.abs().sum()) > 0


def test_a_copy_has_it_too(folder: Path) -> None:
    copy_artefact(folder, folder / "copy")
    one, other = (load_teacher(place).projector for place in (folder, folder / "copy"))
    assert one is not None
    assert other is not None
    assert all(
        torch.equal(a, b)
        for a, b in zip(one.parameters(), other.parameters(), strict=True)
    )


def test_a_model_whose_projector_was_left_behind_still_teaches(folder: Path) -> None:
    (folder / PROJECTOR).unlink()
    assert load_teacher(folder).projector is None


def test_a_damaged_projector_is_refused(folder: Path) -> None:
    content = bytearray((folder / PROJECTOR).read_bytes())
    content[-3] ^= 1
    (folder / PROJECTOR).write_bytes(content)
    with pytest.raises(UserError, match=f"{PROJECTOR} is damaged"):
        load_teacher(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": 5}, "another architecture"),
        ({"depth": 5}, "cannot build"),
        ({"_target_": "os.system"}, "cannot build"),
        ({"_target_": "rrl_dist.models.heads.nn.Linear"}, "cannot build"),
        ({"hidden": -1}, "cannot build"),
        ({"layers": 0}, r"cannot build \(projector\.layers=0; set at least 1\)"),
    ],
)
def test_a_description_names_heads_of_this_project_or_is_refused(
    folder: Path, change: dict[str, Any], message: str
) -> None:
    about = read_json(folder / "model.json")
    about["projector"]["config"] |= change
    write_json(folder / "model.json", about)
    with pytest.raises(UserError, match=message) as caught:
        load_teacher(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("described", [[], "x", {"config": {}}, {"sha256": "0"}])
def test_a_description_that_is_none_is_refused(folder: Path, described: Any) -> None:
    about = read_json(folder / "model.json")
    write_json(folder / "model.json", {**about, "projector": described})
    with pytest.raises(UserError, match="describes no projector"):
        load_teacher(folder)
