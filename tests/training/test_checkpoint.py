"""Checkpoints are read whole and in order, or named and passed over."""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import file_hash, read_json, write_json
from rrl_dist.training.checkpoint import (
    Checkpoints,
    Commit,
    part_name,
)
from rrl_dist.training.checkpoint_claim import claimed
from rrl_dist.training.checkpoint_parts import assemble, on_host, piece
from tests.training.saved import attempt, saved, write


def state(step: int) -> dict[str, Any]:
    named = {"identity": "x", "workers": 1, "objective": {}}
    weight = torch.full((50,), float(step))
    return {"step": step, "weight": weight, "none": None, **named}


@pytest.fixture
def news() -> list[str]:
    return []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


@pytest.fixture
def checkpoints(folder: Path, news: list[str]) -> Checkpoints:
    return Checkpoints(folder, news.append)


def files(folder: Path) -> list[str]:
    names = (path.name for path in folder.iterdir())
    return sorted(name for name in names if claimed(name) is None)


def part(folder: Path, step: int) -> Path:
    (found,) = folder.glob(f"step-{step:08d}-*.pt")
    return found


def commit(folder: Path, step: int) -> Path:
    (found,) = folder.glob(f"step-{step:08d}-*.json")
    return found


def test_there_is_none_before_the_first(checkpoints, news) -> None:
    assert checkpoints.load() is None
    assert news == []


def test_the_newest_comes_back_and_two_are_kept(folder, checkpoints, news) -> None:
    writer, _ = attempt(folder)
    # Sorted as text, 10 would come before 9, and 100000000 before 99999999.
    for step in (9, 10, 99_999_999, 100_000_000):
        write(writer, step, state(step))
        found = checkpoints.load()
        assert found["step"] == step
        assert torch.equal(found["weight"], state(step)["weight"])
        assert found["none"] is None
    kept = checkpoints.commits()
    assert [each.step for each in kept] == [100_000_000, 99_999_999]
    assert files(folder) == sorted(kept[0].files | kept[1].files)
    assert len(files(folder)) == 4
    assert news == []


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def lose(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [flip, cut, empty, lose])
def test_a_damaged_one_is_named_and_the_one_before_is_used(
    folder, checkpoints, news, damage: Callable[[Path], None]
) -> None:
    for step in (1, 2):
        saved(folder, step, state(step))
    damage(part(folder, 2))
    assert checkpoints.load()["step"] == 1
    assert news == [
        f"{folder}/step-00000002-00000002 is damaged; "
        "going back to the checkpoint before it"
    ]


@pytest.mark.parametrize("damage", [flip, cut, empty])
def test_so_is_one_whose_description_is_damaged(
    folder, checkpoints, news, damage: Callable[[Path], None]
) -> None:
    for step in (1, 2):
        saved(folder, step, state(step))
    damage(commit(folder, 2))
    assert checkpoints.load()["step"] == 1
    assert "step-00000002-00000002 is damaged" in news[0]
    # An attempt that begins names it too, before it removes it.
    attempt(folder, notify=news.append)
    assert news[1] == news[0]


def test_weights_without_their_description_are_not_a_checkpoint(
    folder, checkpoints, news
) -> None:
    """As a kill between the two leaves them; the next attempt removes them."""
    for step in (1, 2):
        saved(folder, step, state(step))
    commit(folder, 2).unlink()
    (folder / ".step-00000002-00000002.json.0123").touch()
    assert checkpoints.load()["step"] == 1
    assert news == []
    writer, _ = attempt(folder)
    assert {name[:13] for name in files(folder)} == {"step-00000001"}
    write(writer, 2, {**state(2), "new": True})
    assert checkpoints.load()["new"]


def test_where_all_are_damaged_each_is_named(folder, checkpoints, news) -> None:
    for step in (1, 2):
        saved(folder, step, state(step))
    for step in (1, 2):
        flip(part(folder, step))
    assert checkpoints.load() is None
    shown = [line.split(" is ")[0][-17:] for line in news]
    assert shown == ["00000002-00000002", "00000001-00000002"]
    assert "going back to the start" in news[-1]


def test_damaged_ones_do_not_outlive_new_ones(folder, checkpoints, news) -> None:
    for step in (90, 100):
        saved(folder, step, state(step))
    for step in (90, 100):
        flip(part(folder, step))
    writer, begun = attempt(folder, notify=news.append)
    assert begun is None
    assert files(folder) == []
    write(writer, 50, state(50))
    assert checkpoints.load()["step"] == 50
    assert len(files(folder)) == 2
    assert len(news) == 2


class Bomb:
    """Unpickled, it leaves a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.target}",)


def test_nothing_but_tensors_and_plain_values_is_unpickled(
    folder, checkpoints, tmp_path: Path
) -> None:
    memory = io.BytesIO()
    torch.save({"step": 1, "payload": Bomb(tmp_path / "trace")}, memory)
    name = part_name(1, 7, 0, 1)
    folder.mkdir()
    (folder / name).write_bytes(memory.getvalue())
    sealed = Commit(1, 7, (file_hash(folder / name),), {}, owner=7)
    checkpoints.write(sealed)
    with pytest.raises(
        UserError, match="not a checkpoint that rrl has written"
    ) as told:
        checkpoints.load()
    assert "\n" not in str(told.value)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("content", [[1], {"step": 1}, "text", None])
def test_neither_is_a_file_of_something_else(folder, checkpoints, content: Any) -> None:
    saved(folder, 1, content)
    with pytest.raises(UserError, match="not a checkpoint that rrl has written"):
        checkpoints.load()


@pytest.mark.parametrize("change", [{"parts": []}, {"parts": ["../other.pt"]}])
def test_a_description_that_is_none_is_damaged(
    folder, checkpoints, news, change: dict[str, Any]
) -> None:
    saved(folder, 1, state(1))
    write_json(commit(folder, 1), {**read_json(commit(folder, 1)), **change})
    assert checkpoints.load() is None
    assert "is damaged" in news[0]


def test_one_of_another_name_is_damaged(folder, checkpoints, news) -> None:
    saved(folder, 1, state(1))
    for path in [*folder.glob("step-*")]:
        path.rename(folder / path.name.replace("step-00000001", "step-00000002"))
    assert checkpoints.load() is None
    assert "step-00000002-00000001 is damaged" in news[0]


def cut_up(whole: Any, workers: int, number: int) -> Any:
    """A worker's part of nested state whose tensors are cut into equal pieces."""
    if isinstance(whole, dict):
        return {key: cut_up(value, workers, number) for key, value in whole.items()}
    if not isinstance(whole, torch.Tensor):
        return whole
    flat, each = whole.reshape(-1), -(-whole.numel() // workers)
    offset = min(number * each, whole.numel())
    return piece(flat[offset : offset + each], offset, whole.shape)


@pytest.mark.parametrize("workers", range(1, 9))
def test_pieces_of_any_number_of_workers_are_the_whole(workers: int) -> None:
    generator = torch.Generator().manual_seed(workers)
    shapes = [(), (1,), (5, 3), (2, 3, 4), (0, 4)]
    whole = {
        "step": 7,
        "moments": {
            n: torch.randn(s, generator=generator) for n, s in enumerate(shapes)
        },
        "half": torch.arange(9).to(torch.bfloat16),
    }
    parts = [cut_up(whole, workers, number) for number in range(workers)]
    found = assemble(parts)
    assert found["step"] == 7
    assert torch.equal(found["half"], whole["half"])
    for n, value in whole["moments"].items():
        assert found["moments"][n].shape == value.shape
        assert torch.equal(found["moments"][n], value)
    if workers > 1:
        with pytest.raises(ValueError, match="elements"):
            assemble(parts[1:])


def test_what_only_some_parts_have_is_in_the_whole() -> None:
    first = {"a": {0: torch.zeros(2)}, "b": 1}
    second = {"a": {0: torch.ones(2), 1: torch.ones(3)}, "b": 2, "c": [torch.ones(1)]}
    found = assemble([first, second])
    assert found["b"] == 1
    assert torch.equal(found["a"][0], torch.zeros(2))
    assert torch.equal(found["a"][1], torch.ones(3))
    second["c"][0].zero_()
    assert found["c"] == [torch.ones(1)]


def test_a_copy_shares_no_memory_and_keeps_no_more_than_it_shows() -> None:
    large = torch.arange(1000.0)
    state = {"view": large[10:12], "nested": [(large[:1], None)], 3: "x"}
    copy = on_host(state)
    large.zero_()
    assert copy["view"].tolist() == [10, 11]
    assert copy["view"].untyped_storage().nbytes() == 8
    assert copy["nested"][0][1] is None
    assert copy[3] == "x"
