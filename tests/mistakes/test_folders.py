"""Output folders that hold something else already, or that another run holds."""

import signal
import time
from pathlib import Path

import pytest

from rrl_dist.cli.main import main
from rrl_dist.core.errors import UserError
from rrl_dist.core.run_directory import open_run
from tests.cli.harness import TINY, rrl, start
from tests.mistakes.commands import refused
from tests.mistakes.listing import told

# One step: the shortest run there is.
ONE_STEP = (
    "data=digits",
    "model=small_cnn",
    "model.backbone.width=4",
    "views=none",
    "train.batch_size=64",
    "train.max_steps=1",
    "probe=none",
    "loader=memory",
    "cluster=debug",
)
SUPERVISED = ("pretrain", "name=one", "objective=supervised", *ONE_STEP)


def contents(folder: Path) -> dict[str, bytes]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def succeed(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr("sys.argv", ["rrl", *arguments])
    main()


def test_another_experiment_is_refused_and_a_changed_setting_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    storage = f"storage={tmp_path}"
    succeed(monkeypatch, *SUPERVISED, storage)
    before = contents(tmp_path)
    others = {
        "a folder of another method": (
            ["pretrain", "name=one", "objective=simclr"],
            [*ONE_STEP, "views=simclr"],
            "encoder (Supervised); here: encoder (SimCLR)",
        ),
        "a folder of another data set": (
            ["pretrain", "name=one", "objective=supervised", "data=cifar10"],
            ["cluster=debug"],
            "data set: digits; here: cifar10",
        ),
        "a folder of another command": (
            ["run", "experiment=demo", "name=one"],
            ["cluster=debug"],
            "rrl pretrain; here: rrl run",
        ),
    }
    for case, (asked, more, said) in others.items():
        line = refused([*asked, *more, storage], monkeypatch, capsys)
        assert said in line
        told(case, f"rrl {' '.join(asked)}", line, folder=tmp_path)
        assert contents(tmp_path) == before
    succeed(monkeypatch, *SUPERVISED, storage, "optim.lr=0.001")
    assert len(list((tmp_path / "one" / "stages").iterdir())) == 2


def test_another_experiment_of_the_same_command_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = ["data.classes=[seven]", "cluster=debug", f"storage={tmp_path}"]
    line = refused(["run", "experiment=demo", *broken], monkeypatch, capsys)
    assert "no class 'seven'" in line
    other = ["run", "experiment=deacl_cifar10_cpu", "name=demo"]
    nowhere = ["data.root=/nowhere", "cluster=debug", f"storage={tmp_path}"]
    # Nothing was computed yet: the name is free still.
    assert "/nowhere" in refused([*other, *nowhere], monkeypatch, capsys)
    refused(["run", "experiment=demo", *broken], monkeypatch, capsys)
    (tmp_path / "demo" / "stages").mkdir(parents=True)
    line = refused([*other, *nowhere], monkeypatch, capsys)
    told(
        "a folder of another experiment",
        f"rrl {' '.join(other)}",
        line,
        folder=tmp_path,
    )


def test_a_folder_that_is_no_run_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = tmp_path / "photos"
    mine.mkdir()
    (mine / "me.jpg").write_bytes(b"me")
    asked = ["run", "experiment=demo", "name=photos"]
    line = refused(
        [*asked, "cluster=debug", f"storage={tmp_path}"], monkeypatch, capsys
    )
    told("a folder that is no run's", f"rrl {' '.join(asked)}", line, folder=tmp_path)
    assert contents(tmp_path) == {"photos/me.jpg": b"me"}
    asked = ["run", "experiment=demo"]
    file = f"storage={mine / 'me.jpg'}"
    line = refused([*asked, "cluster=debug", file], monkeypatch, capsys)
    command = f"rrl {' '.join(asked)} storage=FOLDER/photos/me.jpg"
    told("a file where storage should be", command, line, folder=tmp_path)


def test_a_configuration_of_something_else_is_not_a_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("mine: true\n")
    with pytest.raises(UserError, match=r"it holds config\.yaml"):
        open_run(tmp_path, {"command": "rrl run"}, "ours: true\n").__enter__()
    assert contents(tmp_path) == {"config.yaml": b"mine: true\n"}


@pytest.mark.parametrize("name", ["../else", "/else", ".", "a/../b"])
def test_a_name_that_leads_out_of_storage(
    name: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = ["run", "experiment=demo", f"name={name}"]
    line = refused([*asked, f"storage={tmp_path}"], monkeypatch, capsys)
    assert f"name={name}; give a name alone" in line
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_folder_that_another_run_holds(tmp_path: Path) -> None:
    run = ("run", *TINY, "cluster=debug", "loader=memory")
    first = start(tmp_path, *run)
    try:
        held = tmp_path / "runs" / "demo" / "config.yaml"
        deadline = time.monotonic() + 120
        while not held.is_file():
            assert first.poll() is None, first.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.01)
        first.send_signal(signal.SIGSTOP)  # it holds the folder as long as it lives
        line = rrl(tmp_path, *run, status=2)
        told(
            "a folder that another run holds",
            "rrl run experiment=demo",
            line,
            folder=tmp_path,
        )
    finally:
        first.kill()
        first.communicate()
