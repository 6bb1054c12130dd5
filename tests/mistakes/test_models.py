"""Models and checkpoints that cannot be used: said in one line, and never run."""

import io
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rrl_dist.core.storage import file_hash, read_json, write_json
from rrl_dist.models.artefact import save_artefact
from rrl_dist.training.build import build_encoder
from tests.cli.harness import rrl
from tests.mistakes.commands import refused
from tests.mistakes.listing import told

MODEL = {
    "_target_": "rrl_dist.models.encoder.Encoder",
    "backbone": {"_target_": "rrl_dist.models.backbones.SmallCNN", "width": 2},
    "mean": [0.5, 0.5, 0.5],
    "std": [0.2, 0.2, 0.2],
    "sync_bn": True,
}
WIDE = {**MODEL, "backbone": {**MODEL["backbone"], "width": 4}}  # type: ignore[dict-item]
COMMON = ["data=digits", "loader=memory", "cluster=debug", "name=x"]
DISTIL = ["objective=deacl", "views=digits_weak", "train.batch_size=64", "probe=none"]
NARROW = ["model=tiny_cnn", "model.backbone.width=2"]


class Bomb:
    """Unpickled, it leaves a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.target}",)


def trace(folder: Path) -> Path:
    return folder.parent / "trace"


def sealed(folder: Path, content: bytes) -> None:
    """Other weights, and their hash in the description: nothing looks damaged."""
    file = folder / "model.safetensors"
    file.write_bytes(content)
    about = read_json(folder / "model.json")
    write_json(folder / "model.json", {**about, "sha256": file_hash(file)})


def missing(folder: Path) -> None:
    shutil.rmtree(folder)


def a_file(folder: Path) -> None:
    """Where a folder is wanted."""
    shutil.rmtree(folder)
    torch.save({"weight": torch.zeros(2)}, folder)


def without_description(folder: Path) -> None:
    (folder / "model.json").unlink()


def flipped(folder: Path) -> None:
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


def cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def empty(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def a_text(folder: Path) -> None:
    (folder / "model.json").write_text("model: resnet18\n")


def a_pickle(folder: Path) -> None:
    sealed(folder, pickle.dumps(Bomb(trace(folder))))


def a_torch_file(folder: Path) -> None:
    memory = io.BytesIO()
    torch.save({"weight": Bomb(trace(folder))}, memory)
    sealed(folder, memory.getvalue())


def of_another_description(folder: Path) -> None:
    about = read_json(folder / "model.json")
    write_json(folder / "model.json", {**about, "model": WIDE})


def of_unknown_code(folder: Path) -> None:
    about = read_json(folder / "model.json")
    backbone = {"_target_": "os.system", "command": f"touch {trace(folder)}"}
    write_json(
        folder / "model.json", {**about, "model": {**MODEL, "backbone": backbone}}
    )


SPOILED = [
    ("a model that is not there", missing),
    ("a file of weights where a model's folder is wanted", a_file),
    ("a model without its description", without_description),
    ("a model's description that is none", a_text),
    ("a model with one bit flipped", flipped),
    ("a model cut short", cut),
    ("a model of no bytes", empty),
    ("a pickle in the place of a model", a_pickle),
    ("a torch file in the place of a model", a_torch_file),
    ("a model beside another model's description", of_another_description),
    ("a model whose description names code to run", of_unknown_code),
]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An encoder of digits, all well with it."""
    folder = tmp_path / "model"
    trained = {"objective": {"_target_": "rrl_dist.objectives.simclr.SimCLR"}}
    encoder = build_encoder(MODEL, seed=0)
    save_artefact(folder, encoder, model=MODEL, classes=(), training=trained)
    return folder


@pytest.mark.parametrize(("case", "spoil"), SPOILED, ids=[c for c, _ in SPOILED])
def test_of_a_model(
    case: str,
    spoil: Callable[[Path], None],
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    spoil(model)
    own = [*COMMON, f"storage={tmp_path / 'runs'}"]
    line = refused(["evaluate", f"model={model}", *own], monkeypatch, capsys)
    told(case, "rrl evaluate model=FOLDER/model", line, folder=tmp_path)
    teacher = ["pretrain", *DISTIL, *NARROW, f"teacher={model}", *own]
    answer = refused(teacher, monkeypatch, capsys)
    assert line.removeprefix("rrl evaluate: ") in answer
    assert not trace(model).exists(), "what the file holds was run"
    assert not list((tmp_path / "runs").rglob("stages"))


@pytest.mark.parametrize("start", ["true", "false"])
def test_of_a_teacher_of_another_architecture(
    start: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    wide = ["model=tiny_cnn", "model.backbone.width=4"]
    line = refused(
        [
            "pretrain",
            *DISTIL,
            *wide,
            f"teacher={model}",
            f"objective.start_from_teacher={start}",
            *COMMON,
            f"storage={tmp_path / 'runs'}",
        ],
        monkeypatch,
        capsys,
    )
    shown = "rrl pretrain objective=deacl teacher=FOLDER/model model.backbone.width=4"
    told("a teacher of another width", shown, line, folder=tmp_path)


@pytest.mark.parametrize(
    ("case", "option"),
    [
        ("a teacher without a projector", "objective.projector=true"),
        ("kept features of views that change", "objective.cache_teacher=true"),
    ],
)
def test_of_a_teacher_that_cannot_be_used_so(
    case: str,
    option: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = [*COMMON, f"storage={tmp_path / 'runs'}", f"teacher={model}", option]
    line = refused(["pretrain", *DISTIL, *NARROW, *own], monkeypatch, capsys)
    shown = f"rrl pretrain objective=deacl teacher=FOLDER/model {option}"
    told(case, shown, line, folder=tmp_path)


def test_of_a_method_without_its_teacher(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = [*COMMON, f"storage={tmp_path}"]
    line = refused(["pretrain", *DISTIL, *NARROW, *own], monkeypatch, capsys)
    told("a method without its teacher", "rrl pretrain objective=deacl", line)


def test_of_a_model_that_says_nothing_of_its_training(
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    about = read_json(model / "model.json")
    write_json(model / "model.json", {**about, "training": {}})
    own = [*COMMON, f"storage={tmp_path}"]
    line = refused(["evaluate", f"model={model}", *own], monkeypatch, capsys)
    case = "a model that does not say how it was trained"
    told(case, "rrl evaluate model=FOLDER/model", line, folder=tmp_path)


PRETRAIN = (
    "pretrain",
    *COMMON,
    "model=tiny_cnn",
    "objective.projector.hidden=8",
    "objective.projector.out=4",
    "views=digits",
    "probe=none",
    "train.batch_size=64",
    "train.max_steps=4",
    "train.checkpoint_every=2",
)


def newest(folder: Path) -> Path:
    """The last checkpoint of a stage, which now has not come to its end."""
    (stage,) = (folder / "runs/x/stages").glob("pretrain-*")
    (stage / "done.json").unlink(missing_ok=True)
    return max((stage / "checkpoints").glob("step-*.pt"))


def replaced(run: Path, content: Any) -> Path:
    """Another one in the place of the last checkpoint, sealed as if it were whole."""
    checkpoint = newest(run)
    torch.save(content, checkpoint)
    commit = max(checkpoint.parent.glob("step-*.json"))
    about = read_json(commit)
    about["parts"] = [file_hash(checkpoint)]
    write_json(commit, about)
    return checkpoint


@pytest.mark.slow
def test_of_checkpoints(tmp_path: Path) -> None:
    shown = "rrl pretrain name=x"
    narrow, wide = (f"model.backbone.width={width}" for width in (2, 4))
    rrl(tmp_path / "wide", *PRETRAIN, wide)
    rrl(tmp_path / "one", *PRETRAIN, narrow)
    checkpoint = newest(tmp_path / "one")
    state = torch.load(checkpoint, weights_only=True)
    model = checkpoint.parents[1] / "model.safetensors"
    before = model.read_bytes()

    other = torch.load(newest(tmp_path / "wide"), weights_only=True)
    replaced(tmp_path / "one", {**other, "identity": state["identity"]})
    printed = rrl(tmp_path / "one", *PRETRAIN, narrow, status=2)
    case = "a checkpoint of another architecture"
    told(case, shown, printed.strip().splitlines()[-1], folder=short(checkpoint))

    replaced(tmp_path / "one", {**state, "step": Bomb(tmp_path / "trace")})
    printed = rrl(tmp_path / "one", *PRETRAIN, narrow, status=2)
    case = "a checkpoint that holds code to run"
    told(case, shown, printed.strip().splitlines()[-1], folder=short(checkpoint))
    assert not (tmp_path / "trace").exists(), "what the file holds was run"

    # Its hash does not fit: the one before serves, and the end is the same.
    checkpoint = replaced(tmp_path / "one", state)
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.write_bytes(content)
    model.unlink()
    printed = rrl(tmp_path / "one", *PRETRAIN, narrow)
    lines = [line.strip() for line in printed.splitlines()]
    (line,) = [line for line in lines if "going back to the checkpoint before" in line]
    told("a damaged checkpoint", shown, line, folder=short(checkpoint))
    assert model.read_bytes() == before


def short(checkpoint: Path) -> Path:
    """The stage's folder: its name holds a hash of the version."""
    return checkpoint.parents[1]
