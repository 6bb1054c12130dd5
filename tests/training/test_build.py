import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import read_json, write_json
from rrl_dist.models.artefact import save_artefact
from rrl_dist.objectives.objective import Frozen
from rrl_dist.training.build import (
    build,
    build_encoder,
    build_objective,
    load_classifier,
    load_encoder,
    load_teacher,
    offered,
)
from tests.composing import compose, tiny_encoder
from tests.training.stages import composed

ENCODER = {"_target_": "rrl_dist.models.encoder.Encoder"}


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return composed()


def test_what_a_constructor_says_is_told_as_the_users_mistake() -> None:
    with pytest.raises(UserError, match="depth 6n"):
        build({"_target_": "rrl_dist.models.wide_resnet.WideResNet"}, depth=7, width=1)
    nested = {
        **ENCODER,
        "backbone": {
            "_target_": "rrl_dist.models.wide_resnet.WideResNet",
            "depth": 7,
            "width": 1,
        },
    }
    with pytest.raises(UserError, match="depth 6n"):
        build(nested, mean=[0.0] * 3, std=[1.0] * 3, sync_bn=False)
    with pytest.raises(UserError, match=r"rrl_dist\.models\.nothing"):
        build({"_target_": "rrl_dist.models.nothing"})


@pytest.mark.parametrize("backbone", [{"width": 2, "widht": 3}, {}])
@pytest.mark.parametrize("nested", [True, False])
def test_unknown_and_missing_arguments_are_the_users_mistake(
    backbone: dict[str, int], nested: bool
) -> None:
    inner = {"_target_": "rrl_dist.models.backbones.SmallCNN", **backbone}
    outer = {"mean": [0.0] * 3, "std": [1.0] * 3, "sync_bn": False, "backbone": inner}
    with pytest.raises(UserError, match="wid"):
        build({**ENCODER, **outer} if nested else inner)


def test_live_arguments_are_handed_on_as_they_are() -> None:
    backbone = nn.Linear(2, 2)
    backbone.num_features = 2
    made = build(
        ENCODER, backbone=backbone, mean=[0.0] * 3, std=[1.0] * 3, sync_bn=False
    )
    assert made.backbone is backbone


def takes_some(*, encoder: Any, seed: int, weight: float) -> tuple[Any, ...]:
    """Stands for a method's constructor."""
    return encoder, seed, weight


def test_only_what_is_asked_for_and_not_set_is_offered() -> None:
    config = {"_target_": f"{__name__}.takes_some", "weight": 2.0}
    offers = {"encoder": 1, "teacher": 2, "seed": 3, "weight": 4}
    assert offered(config, **offers) == {"encoder": 1, "seed": 3}
    assert offered({**config, "seed": 7}, **offers) == {"encoder": 1}


def test_an_objective_without_its_teacher_asks_for_one(config) -> None:
    arms = config["arms"]
    encoder = build_encoder(config["model"], seed=0)
    given = {"encoder": encoder, "teacher": None, "num_classes": 10}
    given |= {"image_size": 32, "seed": 0}
    with pytest.raises(UserError, match="DeACL distils a teacher; set teacher="):
        build_objective(arms["deacl"]["objective"], **given)
    made = build_objective(arms["simclr"]["objective"], **given)
    assert made.encoder is encoder


def weights(module: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


@pytest.mark.parametrize("depth", [1, 2])
def test_what_a_method_inside_another_says_names_the_key_it_has_there(
    depth: int,
) -> None:
    inside = ("objective", *["base"] * depth)
    chosen = ["objective=spectral", "objective/base=tarrl"][: depth + 1]
    if depth == 2:
        chosen.append("objective/base@objective.base.base=deacl")
    else:
        chosen[1] = "objective/base=deacl"
    key = ".".join(inside)
    config = compose("pretrain", *chosen, f"{key}.target=both")["objective"]
    encoder = tiny_encoder()
    teacher = Frozen(tiny_encoder(1), sha256="teacher")
    parts: dict[str, Any] = {"num_classes": 3, "image_size": 8, "seed": 0}
    with pytest.raises(UserError, match=rf"^{re.escape(key)}\.target=both; choose"):
        build_objective(config, encoder=encoder, teacher=teacher, **parts)


def test_first_weights_depend_on_the_seed_alone(config) -> None:
    torch.manual_seed(5)
    first = build_encoder(config["model"], seed=0)
    torch.manual_seed(6)
    before = torch.get_rng_state()
    again = build_encoder(config["model"], seed=0)
    assert torch.equal(weights(first), weights(again))
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(
        weights(first), weights(build_encoder(config["model"], seed=1))
    )
    heads = []
    for seed in (0, 0, 1):  # while the global generator goes on and on
        made = build_objective(
            config["arms"]["simclr"]["objective"],
            encoder=first,
            teacher=None,
            num_classes=10,
            image_size=32,
            seed=seed,
        )
        heads.append(weights(made.projector))
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])


@pytest.fixture
def folder(tmp_path: Path, config) -> Path:
    model = config["model"]
    save_artefact(
        tmp_path, build_encoder(model, seed=0), model=model, classes=(), training={}
    )
    return tmp_path


def described(folder: Path, model: Any) -> None:
    about = read_json(folder / "model.json")
    write_json(folder / "model.json", {**about, "model": model})


@pytest.mark.parametrize(
    "sizes",
    [
        ("model=dim_cnn", "model.backbone.width=2", "model.backbone.hidden=8"),
        ("model=plain_cnn", "model.backbone.width=2"),
        ("model=wrn28_10", "model.backbone.depth=10", "model.backbone.width=1"),
    ],
    ids=lambda sizes: sizes[0],
)
def test_every_kind_of_backbone_can_be_loaded_again(
    tmp_path: Path, sizes: tuple[str, ...]
) -> None:
    model = compose("pretrain", *sizes, "data=digits")["model"]
    encoder = build_encoder(model, seed=0).eval()
    save_artefact(tmp_path, encoder, model=model, classes=(), training={})
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(load_encoder(tmp_path)[0].eval()(x), encoder(x))


def test_an_encoder_is_not_taken_for_a_classifier(folder: Path) -> None:
    with pytest.raises(UserError, match="encoder without a head; probe it first"):
        load_classifier(folder)


def test_a_teacher_is_frozen_and_named_by_its_weights(folder: Path) -> None:
    teacher = load_teacher(folder)
    assert not teacher.module.training
    assert not any(p.requires_grad for p in teacher.module.parameters())
    assert teacher.sha256 == read_json(folder / "model.json")["sha256"]


def test_weights_of_another_architecture_are_refused(folder: Path, config) -> None:
    wider = {**config["model"], "backbone": {**config["model"]["backbone"], "width": 5}}
    described(folder, wider)
    with pytest.raises(UserError, match="another architecture"):
        load_encoder(folder)


@pytest.mark.parametrize(
    "target",
    ["os.system", "builtins.eval", "rrl_dist.core.storage.write_bytes", "rrl_dist"],
)
@pytest.mark.parametrize("place", ["top", "backbone", "list"])
def test_a_model_file_may_name_models_alone(
    folder: Path, config, target: str, place: str
) -> None:
    trace = folder / "trace"
    bad = {"_target_": target, "command": f"touch {trace}"}
    model = {
        "top": bad,
        "backbone": {**config["model"], "backbone": bad},
        "list": {**config["model"], "mean": [0.1, [bad], 0.1]},
    }[place]
    described(folder, model)
    for load in (load_encoder, load_teacher):
        with pytest.raises(UserError, match=re.escape(str(folder))) as caught:
            load(folder)
        assert "\n" not in str(caught.value)
    assert not trace.exists()


class Bomb:
    """Unpickled, it leaves a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.target}",)


def test_nothing_is_reached_through_a_module_of_models(folder: Path) -> None:
    """`rrl_dist.models.encoder.torch` is torch, whatever its name begins with."""
    trace, payload = folder / "trace", folder / "payload.pt"
    torch.save({"x": Bomb(trace)}, payload)
    prefix = "rrl_dist.models."
    path = {"_target_": f"{prefix}artefact.Path", "_args_": [str(trace)]}
    for model in (
        {"_target_": f"{prefix}encoder.torch.os.system", "command": f"touch {trace}"},
        {
            "_target_": f"{prefix}encoder.torch.load",
            "f": str(payload),
            "weights_only": False,
        },
        {"_target_": f"{prefix}artefact._write_json", "path": path, "value": 1},
    ):
        described(folder, model)
        called = f"{model['_target_']} was called"
        with pytest.raises((UserError, AttributeError)) as caught:
            load_encoder(folder)
        assert not trace.exists(), called
        assert caught.type is UserError, called
