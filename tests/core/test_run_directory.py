import errno
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rrl_dist.core.errors import UserError
from rrl_dist.core.run_directory import StageFolder, locked, open_run
from rrl_dist.core.storage import read_json

HOLDER = """
import sys, time
from pathlib import Path
from rrl_dist.core.run_directory import locked

with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""

ATTEMPT = """
import sys, time
from pathlib import Path
from rrl_dist.core.run_directory import StageFolder

with StageFolder.of(Path(sys.argv[1]), "probe", {}).attempt():
    print("begun", flush=True)
    time.sleep(60)
"""


def failing() -> None:
    time.sleep(0.3)
    raise ZeroDivisionError


@contextmanager
def killed_afterwards(code: str, folder: Path) -> Iterator[str]:
    """A process that runs `code`, and its first line; it dies by SIGKILL."""
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.send_signal(signal.SIGKILL)


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "demo"
    with killed_afterwards(HOLDER, folder) as line:
        assert line == "held"
        with pytest.raises(UserError, match="held by a run") as caught, locked(folder):
            pass
        assert "\n" not in str(caught.value)
        assert "name=" in str(caught.value)
    with locked(folder):
        pass


def test_a_file_system_without_locks_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(file: object, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    with (
        pytest.raises(UserError, match=r"cannot be locked \(no locks available\)"),
        locked(tmp_path),
    ):
        pass


def test_the_lock_is_free_again_after_its_block(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(ZeroDivisionError), locked(tmp_path):
            failing()
    with locked(tmp_path), locked(tmp_path / "other"):
        with pytest.raises(UserError), locked(tmp_path):
            pass
        # The refusal has not let go of it.
        with pytest.raises(UserError), locked(tmp_path):
            pass


def test_settings_name_the_folder_whatever_their_order(tmp_path: Path) -> None:
    one = StageFolder.of(tmp_path, "probe", {"a": 1, "b": {"c": 2, "d": [3]}})
    same = StageFolder.of(tmp_path, "probe", {"b": {"d": [3], "c": 2}, "a": 1})
    assert one == same
    assert one.path.parent == tmp_path / "stages"
    assert one.path.name.startswith("probe-")
    others = [
        StageFolder.of(tmp_path, "probe", {"a": 1, "b": {"c": 2, "d": [4]}}),
        StageFolder.of(tmp_path, "probe", {"a": 1, "b": {"c": 2}}),
        StageFolder.of(tmp_path, "probe", {}),
    ]
    assert len({stage.path for stage in [one, *others]}) == 4
    assert len({stage.identity for stage in [one, *others]}) == 4
    assert StageFolder.of(tmp_path, "other", {}).path != others[2].path
    assert not one.path.exists()


def test_only_success_is_done_and_all_attempts_count(tmp_path: Path) -> None:
    stage = StageFolder.of(tmp_path, "probe", {"a": 1})
    assert not stage.done
    assert stage.seconds == 0
    with pytest.raises(ZeroDivisionError), stage.attempt():
        failing()
    assert not stage.done
    first = stage.seconds
    assert 0.2 <= first < 5
    with stage.attempt():
        assert not stage.done
        time.sleep(0.3)
    assert stage.done
    assert first + 0.2 <= stage.seconds < first + 5
    assert read_json(stage.path / "done.json")["identity"] == stage.identity
    again = StageFolder.of(tmp_path, "probe", {"a": 1})
    assert again.done
    assert again.seconds == stage.seconds
    assert not StageFolder.of(tmp_path, "probe", {"a": 2}).done


@pytest.mark.slow
def test_a_kill_loses_seconds_of_the_time_spent(tmp_path: Path) -> None:
    with killed_afterwards(ATTEMPT, tmp_path) as line:
        assert line == "begun"
        time.sleep(6)
    stage = StageFolder.of(tmp_path, "probe", {})
    assert not stage.done
    assert 4.5 <= stage.seconds < 8


def test_a_run_says_what_it_ran_with(tmp_path: Path) -> None:
    with open_run(tmp_path, {}, "name: demo\n"):
        pass
    assert (tmp_path / "config.yaml").read_text() == "name: demo\n"
    about = json.loads((tmp_path / "environment.json").read_text())
    assert about["versions"]["torch"]
    assert about["cores"] >= 1
