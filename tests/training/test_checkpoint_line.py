"""Names of checkpoints' files, and which checkpoints are of one history."""

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rrl_dist.training.checkpoint import (
    Checkpoints,
    Commit,
    in_line,
    owner_of,
    part_name,
    step_of,
)
from tests.training.saved import attempt, saved, write


def state(step: int) -> dict[str, Any]:
    named = {"identity": "x", "workers": 1, "objective": {}}
    return {"step": step, "weight": torch.full((50,), float(step)), **named}


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*step-*"))


def test_names_tell_steps_and_owners() -> None:
    assert step_of("step-00000012-0000000a.json") == 12
    assert step_of("step-100000000-0000000a.json") == 100_000_000
    others = (part_name(12, 10, 0, 1), ".step-00000012-0000000a.json.ab")
    for other in others:
        assert step_of(other) is None
        assert owner_of(other) == 10
    for other in ("step-1.json", "step-00000012.json", "attempt-0000000a"):
        assert step_of(other) is None
        assert owner_of(other) is None


def made(step: int, attempt: int) -> Commit:
    return Commit(step, attempt, ("0" * 64,), {}, owner=attempt)


def test_what_a_late_attempt_made_is_not_of_the_line() -> None:
    first, late = made(6, 3), made(12, 3)
    second, third = made(9, 4), made(12, 5)
    assert in_line([first, late]) == [late, first]
    assert in_line([late, second, first]) == [second, first]
    assert in_line([late, third, second, first]) == [third, second, first]
    assert in_line([late, made(3, 5), first]) == [made(3, 5)]
    # A link bears another name, and is of the attempt that made it.
    link = replace(first, owner=5)
    assert in_line([late, second, link]) == [second, link]
    # One that cannot be read may be such a link.
    unread = Commit(6, 5, (), {}, owner=5)
    assert in_line([unread, second]) == [second, unread]


def test_links_of_a_file_tell_of_the_same_checkpoint(tmp_path: Path) -> None:
    writer, _ = attempt(tmp_path)
    write(writer, 1, state(1))
    (before,) = writer.checkpoints.commits()
    later, found = attempt(tmp_path)
    assert found is not None
    (now,) = later.checkpoints.commits()
    assert now == before
    assert (before.owner, now.owner, now.attempt) == (1, 2, 1)
    assert Commit.of_json(now.as_json()).name == now.name
    assert not now.files & before.files
    assert files(tmp_path) == sorted(now.files)


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP])
def test_where_there_are_no_links_it_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refused(*names: object) -> None:
        raise OSError(code, os.strerror(code))

    saved(tmp_path, 1, state(1))
    monkeypatch.setattr(os, "link", refused)
    _, found = attempt(tmp_path)
    assert found is not None
    again = Checkpoints(tmp_path, pytest.fail).load()
    assert again is not None
    assert again["step"] == 1
    assert len(files(tmp_path)) == 2
