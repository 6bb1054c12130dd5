import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import file_hash, write_json
from rrl_dist.training.checkpoint import Checkpoints


def state(step: int) -> dict[str, Any]:
    named = {"identity": "x", "workers": 1, "objective": {}}
    weight = torch.full((50,), float(step))
    return {"step": step, "weight": weight, "none": None, **named}


@pytest.fixture
def news() -> list[str]:
    return []


@pytest.fixture
def checkpoints(tmp_path: Path, news: list[str]) -> Checkpoints:
    return Checkpoints(tmp_path / "checkpoints", news.append)


def names(checkpoints: Checkpoints) -> list[str]:
    return sorted(path.name for path in checkpoints.folder.iterdir())


def test_there_is_none_before_the_first(checkpoints, news) -> None:
    assert checkpoints.load() is None
    assert news == []


def test_the_newest_comes_back_and_two_are_kept(checkpoints, news) -> None:
    # Sorted as text, 10 would come before 9, and 100000000 before 99999999.
    for step in (8, 9, 10, 11):
        checkpoints.save(step, state(step))
        found = checkpoints.load()
        assert found["step"] == step
        assert torch.equal(found["weight"], state(step)["weight"])
        assert found["none"] is None
    assert names(checkpoints) == [
        "step-00000010.json",
        "step-00000010.pt",
        "step-00000011.json",
        "step-00000011.pt",
    ]
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
    checkpoints, news, damage: Callable[[Path], None]
) -> None:
    for step in (1, 2):
        checkpoints.save(step, state(step))
    damage(checkpoints.folder / "step-00000002.pt")
    assert checkpoints.load()["step"] == 1
    assert len(news) == 1
    assert "step-00000002.pt" in news[0]
    assert "\n" not in news[0]


@pytest.mark.parametrize("damage", [flip, cut, empty])
def test_so_is_one_whose_description_is_damaged(
    checkpoints, news, damage: Callable[[Path], None]
) -> None:
    for step in (1, 2):
        checkpoints.save(step, state(step))
    damage(checkpoints.folder / "step-00000002.json")
    assert checkpoints.load()["step"] == 1
    assert "step-00000002" in news[0]


def test_weights_without_their_description_are_not_a_checkpoint(
    checkpoints, news
) -> None:
    """As a kill between the two leaves them; the next one to come replaces them."""
    for step in (1, 2):
        checkpoints.save(step, state(step))
    (checkpoints.folder / "step-00000002.json").unlink()
    assert checkpoints.load()["step"] == 1
    assert news == []
    checkpoints.save(2, {**state(2), "new": True})
    assert checkpoints.load()["new"]


def test_where_all_are_damaged_each_is_named(checkpoints, news) -> None:
    for step in (1, 2):
        checkpoints.save(step, state(step))
        flip(checkpoints.folder / f"step-{step:08d}.pt")
    assert checkpoints.load() is None
    assert [line.split(" is ")[0][-12:] for line in news] == [
        "-00000002.pt",
        "-00000001.pt",
    ]


def test_a_damaged_one_is_replaced_when_its_step_comes_again(checkpoints, news) -> None:
    for step in (1, 2):
        checkpoints.save(step, state(step))
    cut(checkpoints.folder / "step-00000002.pt")
    checkpoints.save(2, state(2))
    assert checkpoints.load()["step"] == 2
    assert news == []


def test_damaged_ones_of_later_steps_do_not_outlive_new_ones(checkpoints, news) -> None:
    for step in (90, 100):
        checkpoints.save(step, state(step))
        flip(checkpoints.folder / f"step-{step:08d}.pt")
    assert checkpoints.load() is None
    assert "going back to the start" in news[-1]
    checkpoints.save(50, state(50))
    assert checkpoints.load()["step"] == 50
    assert len(list(checkpoints.folder.iterdir())) == 2


class Bomb:
    """Unpickled, it leaves a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.target}",)


def test_nothing_but_tensors_and_plain_values_is_unpickled(
    checkpoints, tmp_path: Path
) -> None:
    memory = io.BytesIO()
    torch.save({"step": 1, "payload": Bomb(tmp_path / "trace")}, memory)
    path = checkpoints.folder / "step-00000001.pt"
    path.parent.mkdir()
    path.write_bytes(memory.getvalue())
    write_json(path.with_suffix(".json"), {"sha256": file_hash(path), "step": 1})
    with pytest.raises(
        UserError, match="not a checkpoint that rrl has written"
    ) as told:
        checkpoints.load()
    assert "\n" not in str(told.value)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("content", [[1], {"step": 1}, "text", None])
def test_neither_is_a_file_of_something_else(checkpoints, content: Any) -> None:
    checkpoints.save(1, content)
    with pytest.raises(UserError, match="not a checkpoint that rrl has written"):
        checkpoints.load()
