"""Classifiers that are not this project's, and cannot be attacked: said in one line."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from tests.evaluate.strangers import MODULE, TEXT
from tests.mistakes.commands import refused
from tests.mistakes.listing import told

COMMON = ["data=digits", "loader=memory", "cluster=debug", "name=x", "suite=pgd20"]

# What is wrong, what was typed, what the answer has to hold.
TOLD = [
    (
        "a classifier of a module that is not there",
        ["model=rrl_stranger:build"],
        f"the nearest in FOLDER is {MODULE}",
    ),
    (
        "a classifier of a module without that function",
        [f"model={MODULE}:biuld"],
        "the nearest is build",
    ),
    (
        "a classifier of a module that cannot be imported",
        ["model=rrl_faulty:build"],
        "rrl_faulty cannot be imported: NameError",
    ),
    (
        "a classifier of a module that needs another",
        ["model=rrl_needy:build"],
        "imports no_such_package, which is not installed",
    ),
    (
        "a classifier's function that fails",
        [f"model={MODULE}:broken"],
        "failed: KeyError: 'checkpoint'",
    ),
    (
        "a classifier's function that returns none",
        [f"model={MODULE}:nothing"],
        "returned nothing; return a torch.nn.Module",
    ),
    (
        "a classifier that is another each time",
        [f"model={MODULE}:another_each_time"],
        "is another each time that it is made",
    ),
    (
        "a classifier of images of another size",
        [f"model={MODULE}:larger"],
        "does not take the 32 x 32 images of digits-test",
    ),
    (
        "a library's classifier of images of another size",
        ["model=timm:vit_tiny_patch16_224", "weights=vit.safetensors"],
        "it is made for 224 x 224",
    ),
    (
        "a classifier of other classes",
        [f"model={MODULE}:thousand"],
        "returns 1000 logits, and digits-test has 10 classes",
    ),
    (
        "a library's classifier of other classes",
        ["model=timm:resnet18"],
        "tells 1000 classes apart, and the data has 10",
    ),
    (
        "a classifier with NaN logits",
        [f"model={MODULE}:not_a_number"],
        "logits that are not finite",
    ),
    (
        "a classifier that returns probabilities",
        [f"model={MODULE}:probabilities"],
        "return logits, without the softmax",
    ),
    (
        "a classifier that returns a tuple",
        [f"model={MODULE}:two_answers"],
        "returns a tuple for 8 images",
    ),
    (
        "an attack on features of a classifier without an encoder",
        [f"model={MODULE}:build", "suite=representation"],
        "such as suite=autoattack",
    ),
    (
        "the vulnerability of a classifier without an encoder",
        [f"model={MODULE}:build", "suite=vulnerability"],
        "shows none; choose a suite without it",
    ),
    (
        "a corruption that there is not",
        [
            f"model={MODULE}:build",
            "suite=corruptions",
            "suite.corruptions.kinds=[rain]",
        ],
        "choose gaussian_noise",
    ),
    (
        "published corruptions where there are none",
        [
            f"model={MODULE}:build",
            "suite=corruptions",
            "suite.corruptions.folder=no/CIFAR-10-C",
        ],
        "give the folder of CIFAR-10-C",
    ),
    (
        "textures of frost where there are none",
        [
            f"model={MODULE}:build",
            "suite=corruptions",
            "suite.corruptions.frost=no/frost",
        ],
        "give a folder of textures",
    ),
    (
        "a model that timm does not have",
        ["model=timm:resnt18"],
        "the nearest is resnet18",
    ),
    (
        "weights that timm does not have",
        ["model=timm:resnet18.a1_in2k"],
        "the nearest is resnet18.a1_in1k",
    ),
    (
        "a model that torchvision does not have",
        ["model=torchvision:resnet81"],
        "the nearest is resnet18",
    ),
    (
        "weights in a file that may hold code",
        ["model=timm:resnet18", "weights=model.pt"],
        "safetensors.torch.save_file",
    ),
    (
        "weights that are not there",
        ["model=timm:resnet18", "weights=none.safetensors"],
        "there is no such file",
    ),
    (
        "weights in a file that is no safetensors",
        ["model=timm:resnet18", "weights=text.safetensors"],
        "is not a safetensors file",
    ),
    (
        "weights of another network",
        ["model=timm:resnet18", "weights=vit.safetensors"],
        "is of another architecture",
    ),
    (
        "weights beside a folder that has its own",
        ["model=FOLDER/model", "weights=vit.safetensors"],
        "leave weights= out",
    ),
    (
        "a mean for a module that normalizes inside",
        [f"model={MODULE}:build", "mean=[0.5,0.5,0.5]"],
        "leave mean= out",
    ),
    (
        "a mean that is no list",
        ["model=timm:resnet18", "mean=0.5"],
        "give three numbers",
    ),
    (
        "a std of zero",
        ["model=timm:resnet18", "std=[0.2,0.2,0]"],
        "above 0",
    ),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    (folder / f"{MODULE}.py").write_text(TEXT)
    (folder / "rrl_faulty.py").write_text("undefined\n")
    (folder / "rrl_needy.py").write_text("import no_such_package\n")
    (folder / "text.safetensors").write_text("weights\n")
    model = timm.create_model("vit_tiny_patch16_224", num_classes=10)
    save_file(model.state_dict(), folder / "vit.safetensors")
    torch.save({}, folder / "model.pt")
    return folder


@pytest.fixture
def here(files: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The files' folder as the working one; what was imported is forgotten."""
    monkeypatch.chdir(files)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield files
    for name in (MODULE, "rrl_faulty", "rrl_needy"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("case", "arguments", "said"), TOLD, ids=[case for case, _, _ in TOLD]
)
def test_of_a_stranger(
    case: str,
    arguments: list[str],
    said: str,
    here: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [word.replace("FOLDER", str(here)) for word in arguments]
    own = [*COMMON, f"storage={tmp_path / 'runs'}"]
    line = refused(["evaluate", *own, *given], monkeypatch, capsys)
    assert said in line.replace(str(here), "FOLDER")
    told(case, f"rrl evaluate {' '.join(arguments)}", line, folder=here)
    # Nothing was begun.
    assert not list(tmp_path.glob("runs/x/stages/*"))
