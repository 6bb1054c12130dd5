"""A model's description may be a stranger's: it is read, never run."""

from pathlib import Path

import pytest

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import read_json, write_json
from rrl_dist.models.artefact import save_artefact
from rrl_dist.models.backbones import SmallCNN
from rrl_dist.models.encoder import Encoder
from rrl_dist.training.build import load_encoder

MODEL = {
    "_target_": "rrl_dist.models.encoder.Encoder",
    "backbone": {"_target_": "rrl_dist.models.backbones.SmallCNN", "width": 2},
    "mean": [0.5, 0.5, 0.5],
    "std": [0.2, 0.2, 0.2],
    "sync_bn": True,
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    encoder = Encoder(
        backbone=SmallCNN(width=2), mean=[0.5] * 3, std=[0.2] * 3, sync_bn=True
    )
    save_artefact(tmp_path, encoder, model=MODEL, classes=(), training={})
    return tmp_path


def describe(folder: Path, **changes: object) -> None:
    about = read_json(folder / "model.json")
    write_json(folder / "model.json", {**about, "model": {**MODEL, **changes}})


def test_an_honest_description_loads(folder: Path) -> None:
    encoder, _ = load_encoder(folder)
    assert encoder.num_features == 8


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "rrl_dist.models.encoder.torch.hub.load",
        "rrl_dist.models.encoder.torch.load",
        "rrl_dist.models.artefact.write_bytes",
        "rrl_dist.models.artefact.Path",
        "rrl_dist.models.backbones.timm_backbone.__globals__",
    ],
)
def test_no_import_path_of_the_files_own_is_followed(
    folder: Path, tmp_path: Path, target: str
) -> None:
    victim = tmp_path / "written-by-the-model"
    backbone = {"_target_": target, "path": str(victim), "content": "x"}
    describe(folder, backbone=backbone)
    with pytest.raises(UserError, match="describes a model"):
        load_encoder(folder)
    describe(folder, _target_=target)
    with pytest.raises(UserError, match="describes a model"):
        load_encoder(folder)
    assert not victim.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": {"_target_": "builtins.exec"}},
        {"backbone": {**MODEL["backbone"], "width": "${oc.env:HOME}"}},  # type: ignore[dict-item]
        {"backbone": {**MODEL["backbone"], "_args_": [1]}},  # type: ignore[dict-item]
        {"backbone": None},
        {"hook": "x"},
    ],
)
def test_nothing_in_it_is_interpreted(folder: Path, changes: dict[str, object]) -> None:
    describe(folder, **changes)
    with pytest.raises(UserError):
        load_encoder(folder)
