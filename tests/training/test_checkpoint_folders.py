"""Folders that checkpoints are copied to are the same for all workers."""

from pathlib import Path
from typing import Any

import pytest

from rrl_dist.core.errors import UserError
from rrl_dist.training import checkpoint_folders
from rrl_dist.training.checkpoint_folders import (
    absolute_copies,
    check_copies,
    copy_folders,
)


def config(first: str | None, second: str | None) -> dict[str, Any]:
    train = {"batch_size": 4, "checkpoints": {"keep": 2, "copy": first}}
    protocol = {"train": {"checkpoints": {"keep": 1, "copy": second}}}
    return {"name": "x", "arms": {"a": {"train": train}}, "protocol": protocol}


def copies(found: dict[str, Any]) -> list[str | None]:
    trains = (found["arms"]["a"]["train"], found["protocol"]["train"])
    return [train["checkpoints"]["copy"] for train in trains]


def test_folders_do_not_depend_on_where_a_process_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    given = config("copies/one", "~/two")
    found = absolute_copies(given)
    assert copies(found) == [f"{tmp_path}/copies/one", "/home/me/two"]
    assert copies(given) == ["copies/one", "~/two"]
    assert copy_folders(found) == {tmp_path / "copies/one", Path("/home/me/two")}
    assert absolute_copies(found) == found


@pytest.mark.parametrize("address", ["s3://bucket/x", "file:///x", None])
def test_addresses_stay_as_they_are(address: str | None) -> None:
    given = config(address, None)
    assert absolute_copies(given) == given
    assert copy_folders(given) == set()


def test_a_node_without_the_folder_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = {"NodeManagerHostname": "two", "NodeManagerAddress": "10.0.0.2"}
    asked = []

    def answers(folder: Path, nodes: list[Any]) -> list[Any]:
        assert folder.is_dir()
        asked.append(folder)
        return [(node, "does not have that folder")] if folder.name == "b" else []

    monkeypatch.setattr(checkpoint_folders, "alive_nodes", lambda: [node])
    monkeypatch.setattr(checkpoint_folders, "storage_answers", answers)
    check_copies(config(str(tmp_path / "a"), None))
    with pytest.raises(UserError, match=r"copy=.*/b: node two .* does not") as told:
        check_copies(config(str(tmp_path / "a"), str(tmp_path / "b")))
    assert "\n" not in str(told.value)
    assert [folder.name for folder in asked] == ["a", "a", "b"]
