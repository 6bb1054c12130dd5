import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import nn

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import file_hash, read_json, write_json
from rrl_dist.models.artefact import (
    copy_artefact,
    load_artefact,
    load_strictly,
    save_artefact,
)
from rrl_dist.models.backbones import SmallCNN
from rrl_dist.models.encoder import Encoder

MODEL = {"_target_": "somewhere", "width": 2}


def module(width: int = 2) -> nn.Module:
    torch.manual_seed(0)
    made = Encoder(
        backbone=SmallCNN(width=width), mean=[0.1] * 3, std=[0.7] * 3, sync_bn=False
    )
    made(torch.rand(4, 3, 8, 8))  # buffers are not the initial ones any more
    return made


def saved(folder: Path, made: nn.Module | None = None) -> str:
    return save_artefact(
        folder,
        module() if made is None else made,
        model=MODEL,
        classes=("cat", "dog"),
        training={"seed": 3},
    )


def test_a_model_comes_back_bit_for_bit(tmp_path: Path) -> None:
    original = module()
    sha256 = saved(tmp_path / "deep" / "model", original)
    found = load_artefact(tmp_path / "deep" / "model")
    other = module()
    for value in other.state_dict().values():
        value.zero_()
    load_strictly(other, found.state, source="test", mend="")
    for name, value in original.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
        assert other.state_dict()[name].dtype == value.dtype
    assert (found.model, found.classes) == (MODEL, ("cat", "dog"))
    assert found.training == {"seed": 3}
    assert found.sha256 == sha256
    assert sha256 == file_hash(tmp_path / "deep" / "model" / "model.safetensors")


def test_the_layout_in_memory_does_not_matter(tmp_path: Path) -> None:
    original = module()
    sha256 = saved(tmp_path / "a", original)
    original.to(memory_format=torch.channels_last)
    assert saved(tmp_path / "b", original) == sha256


def test_a_copy_is_the_same_model(tmp_path: Path) -> None:
    sha256 = saved(tmp_path / "one")
    copy_artefact(tmp_path / "one", tmp_path / "deep" / "other")
    one, other = (load_artefact(tmp_path / name) for name in ("one", "deep/other"))
    assert other.sha256 == sha256
    assert (other.model, other.training) == (one.model, one.training)


def test_other_tools_can_read_the_weights(tmp_path: Path) -> None:
    saved(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    assert set(state) == set(module().state_dict())


@pytest.mark.parametrize("name", ["model.safetensors", "model.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    saved(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(UserError, match=f"{name} is missing"):
        load_artefact(tmp_path)


@settings(
    deadline=None,
    max_examples=30,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_one_flipped_bit_is_found(tmp_path: Path, data: st.DataObject) -> None:
    saved(tmp_path)
    path = tmp_path / "model.safetensors"
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        load_artefact(tmp_path)


def test_a_file_cut_short_is_found(tmp_path: Path) -> None:
    saved(tmp_path)
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="damaged"):
        load_artefact(tmp_path)


@pytest.mark.parametrize("content", ["", '{"schema": 1', '{"schema": 1}', "[]", "\x00"])
def test_a_description_that_is_none_is_the_users_to_mend(
    tmp_path: Path, content: str
) -> None:
    saved(tmp_path)
    (tmp_path / "model.json").write_text(content)
    with pytest.raises(UserError, match=r"model\.json"):
        load_artefact(tmp_path)


def test_another_schema_is_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    about = read_json(tmp_path / "model.json")
    write_json(tmp_path / "model.json", {**about, "schema": 99})
    with pytest.raises(UserError, match="schema 99, not 1"):
        load_artefact(tmp_path)


class Bomb:
    """Unpickled, it leaves a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.target}",)


def test_a_pickle_is_refused_and_never_opened(tmp_path: Path) -> None:
    saved(tmp_path)
    weights, trace = tmp_path / "model.safetensors", tmp_path / "trace"
    for write in (lambda: pickle.dumps(Bomb(trace)), lambda: torch_pickle(trace)):
        weights.write_bytes(write())
        about = json.loads((tmp_path / "model.json").read_text())
        write_json(tmp_path / "model.json", {**about, "sha256": file_hash(weights)})
        with pytest.raises(UserError, match="not a safetensors file") as caught:
            load_artefact(tmp_path)
        assert "\n" not in str(caught.value)
    assert not trace.exists()


def torch_pickle(trace: Path) -> bytes:
    import io

    memory = io.BytesIO()
    torch.save({"weight": Bomb(trace)}, memory)
    return memory.getvalue()


@pytest.mark.parametrize("change", ["wider", "missing", "more"])
def test_weights_load_strictly_or_not_at_all(change: str) -> None:
    target = module()
    state = {
        "wider": lambda: module(width=3).state_dict(),
        "missing": lambda: dict(list(module().state_dict().items())[1:]),
        "more": lambda: {**module().state_dict(), "extra": torch.zeros(1)},
    }[change]()
    with pytest.raises(UserError, match="FOLDER is of another architecture") as caught:
        load_strictly(target, state, source="FOLDER", mend="mend it")
    assert str(caught.value).endswith("; mend it")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
