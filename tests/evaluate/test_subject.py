"""Any classifier becomes the module that is attacked, or one line says why not."""

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rrl_dist.core.errors import UserError
from rrl_dist.evaluate.source import Source
from rrl_dist.evaluate.subject import load_subject, state_hash
from rrl_dist.models.zoo import timm_model
from rrl_dist.training.build import load_classifier
from tests.evaluate.strangers import MODULE, TEXT

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where the strangers' module is; forgotten afterwards."""
    (tmp_path / f"{MODULE}.py").write_text(TEXT)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield tmp_path
    sys.modules.pop(MODULE, None)


def images() -> Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def saved(model: nn.Module, folder: Path) -> str:
    file = folder / "weights.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, file)
    return str(file)


def by_hand(model: nn.Module, mean: Any, std: Any) -> Tensor:
    columns = (torch.tensor(v).view(1, 3, 1, 1) for v in (mean, std))
    center, scale = columns
    with torch.no_grad():
        found: Tensor = model.eval()((images() - center) / scale)
    return found


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize("library", ["timm", "torchvision"])
@pytest.mark.parametrize(("mean", "std"), [(None, None), (MEAN, STD), (None, STD)])
def test_a_librarys_model_takes_images_and_normalizes_inside(
    library: str, mean: Any, std: Any, tmp_path: Path
) -> None:
    if library == "timm":
        model = timm.create_model("resnet18", num_classes=7)
    else:
        model = torchvision.models.resnet18(num_classes=7)
    source = Source(
        f"{library}:resnet18",
        weights=saved(model, tmp_path),
        mean=mean,
        std=std,
        classes=7,
    )
    subject = load_subject(source)
    with torch.no_grad():
        found = subject.module(images())
    expected = by_hand(model, mean or IMAGENET[0], std or IMAGENET[1])
    torch.testing.assert_close(found, expected)
    assert not subject.module.training
    assert subject.size == 224
    # Whose normalization is taken is told of unless it was given.
    assert len(subject.notes) == (mean is None or std is None)


def test_a_function_gives_its_module(folder: Path) -> None:
    subject = load_subject(Source(f"{MODULE}:build", folder=str(folder)))
    module = sys.modules[MODULE].build()
    with torch.no_grad():
        assert torch.equal(subject.module(images()), module(images()))
    assert subject.notes == ()


def test_weights_of_a_file_take_the_place_of_a_functions(folder: Path) -> None:
    source = Source(f"{MODULE}:build", folder=str(folder))
    other = load_subject(source).module
    with torch.no_grad():
        other.get_parameter("fc.bias").fill_(3.0)
    given = load_subject(replace(source, weights=saved(other, folder)))
    bias = given.module.get_parameter("fc.bias")
    assert torch.equal(bias, other.get_parameter("fc.bias"))
    assert given.sha256 != load_subject(source).sha256


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "net.model."])
def test_names_behind_a_prefix_are_told_with_what_takes_it_away(
    folder: Path, prefix: str
) -> None:
    module = torchvision.models.resnet18(num_classes=3)
    state = {prefix + k: v for k, v in module.state_dict().items()}
    file = folder / "wrapped.safetensors"
    save_file({**state, "other.scale": torch.ones(1)}, file)
    source = Source("torchvision:resnet18", weights=str(file), classes=3)
    with pytest.raises(UserError) as caught:
        load_subject(source)
    told = str(caught.value)
    assert f'its names begin with "{prefix}", and those of torchvision' in told
    assert "\n" not in told
    # What it says is what helps.
    found = re.search(r"save_file\((.*), NEW\)$", told)
    assert found is not None
    known = {"load_file": load_file, "OLD": file}
    stripped = eval(found[1], known)
    del stripped["other.scale"]
    save_file(stripped, folder / "plain.safetensors")
    source = replace(source, weights=str(folder / "plain.safetensors"))
    inner = load_subject(source).module
    assert any(
        torch.equal(value, module.state_dict()["fc.weight"])
        for name, value in inner.state_dict().items()
        if name.endswith("fc.weight")
    )


def test_weights_of_another_network_have_no_prefix(folder: Path) -> None:
    file = saved(torchvision.models.squeezenet1_0(num_classes=3), folder)
    source = Source("torchvision:resnet18", weights=file, classes=3)
    with pytest.raises(UserError, match="is of another architecture"):
        load_subject(source)


def test_train_mode_is_left_and_told_of(folder: Path) -> None:
    subject = load_subject(Source(f"{MODULE}:training", folder=str(folder)))
    assert not any(part.training for part in subject.module.modules())
    (note,) = subject.notes
    assert "train mode; it is attacked in eval mode" in note


def test_a_model_of_this_projects_is_itself(classifier: Path) -> None:
    model, artefact = load_classifier(classifier)
    for named in (classifier, classifier / "model.safetensors"):
        subject = load_subject(Source(str(named)))
        assert (subject.sha256, subject.classes) == (artefact.sha256, artefact.classes)
        assert state_hash(subject.module) == state_hash(model)


def test_a_subject_is_known_by_weights_normalization_and_code(folder: Path) -> None:
    plain = Source(f"{MODULE}:build", folder=str(folder))
    first = load_subject(plain).sha256
    assert load_subject(plain).sha256 == first
    (folder / f"{MODULE}.py").write_text(TEXT + "# changed\n")
    sys.modules.pop(MODULE)
    assert load_subject(plain).sha256 != first
    model = timm.create_model("resnet18", num_classes=7)
    source = Source("timm:resnet18", weights=saved(model, folder), classes=7)
    shas = {load_subject(one).sha256 for one in (source, replace(source, mean=MEAN))}
    with torch.no_grad():
        model.get_parameter("fc.weight")[0, 0] += 1e-3
    source = replace(source, weights=saved(model, folder))
    assert len(shas | {load_subject(source).sha256}) == 3


def test_what_is_another_each_time_is_refused(folder: Path) -> None:
    source = Source(f"{MODULE}:another_each_time", folder=str(folder))
    first = load_subject(source)
    with pytest.raises(UserError, match="is another each time that it is made"):
        load_subject(replace(source, sha256=first.sha256))


def test_a_hash_reads_every_bit_and_name() -> None:
    one = nn.Linear(2, 2).to(torch.bfloat16)
    before = state_hash(one)
    with torch.no_grad():
        one.weight[0, 0] = -one.weight[0, 0]
    assert state_hash(one) != before
    assert state_hash(one) == state_hash(one)
    # A number without a shape, as batch norm counts.
    norm = nn.BatchNorm1d(2)
    assert norm.num_batches_tracked is not None
    was = state_hash(norm)
    norm.num_batches_tracked += 1
    assert state_hash(norm) != was


class Bomb:
    """Unpickled, it leaves a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.target}",)


def test_a_librarys_file_is_not_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that lies where torchvision keeps what it has fetched."""
    kept = tmp_path / "hub" / "checkpoints"
    kept.mkdir(parents=True)
    weights = torchvision.models.ResNet18_Weights.DEFAULT
    file = kept / Path(weights.url).name
    torch.save({"fc.bias": Bomb(tmp_path / "trace")}, file)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(UserError, match="cannot be fetched"):
        load_subject(Source("torchvision:resnet18", classes=1000))
    assert not (tmp_path / "trace").exists(), "what the file holds was run"
    assert "TORCH_FORCE_WEIGHTS_ONLY_LOAD" not in os.environ


def test_what_cannot_be_fetched_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody answers there
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    for library in ("timm", "torchvision"):
        with pytest.raises(UserError) as told:
            load_subject(Source(f"{library}:resnet18", classes=1000))
        line = str(told.value)
        assert line.startswith(f"the weights of {library}:resnet18 cannot be fetched")
        assert line.endswith("give weights=FILE.safetensors")
        assert "\n" not in line


def test_a_model_that_was_never_trained_needs_weights() -> None:
    name = next(
        name for name in timm.list_models("resnet*") if timm_model(name).classes is None
    )
    with pytest.raises(UserError, match=f"no trained weights of timm:{name}; give w"):
        load_subject(Source(f"timm:{name}"))


def test_functions_are_told_from_folders(tmp_path: Path) -> None:
    kinds = {
        "timm:resnet18.a1_in1k": "timm",
        "torchvision:vit_b_16": "torchvision",
        "mymod:build": "function",
        "pkg.sub.mymod:Net": "function",
        "runs/a/models/simclr": "own",
        "./model.safetensors": "own",
        "/a:b/c": "own",
        "a-b:c": "own",
    }
    assert {name: Source(name).kind for name in kinds} == kinds
    assert [name for name in kinds if Source(name).has_encoder] == list(kinds)[4:]
