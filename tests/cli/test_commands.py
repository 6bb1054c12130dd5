"""Commands as a person meets them: help, one-line errors, and each run once."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

from rrl_dist.cli.main import COMMANDS, main
from rrl_dist.core.storage import read_json
from tests.cli.harness import TINY, rrl

TWO_WORKERS = ("cluster.workers=2",)


def test_usage_names_every_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["rrl"])
    main()
    printed = capsys.readouterr().out
    for name in COMMANDS:
        assert f"rrl {name}" in printed


def test_an_unknown_command_gets_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["rrl", "pretrian"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == "rrl: there is no command pretrian; the nearest is rrl pretrain"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run"], "choose an experiment: experiment="),
        (["pretrain"], "name is not set"),
        (["run", "experiment=demo", "data.classes=[seven]"], "no class 'seven'"),
        (["run", "experiment=demo", "cluster.workers=0"], "cluster.workers=0"),
        (
            ["run", "experiment=demo", "cluster=debug", "cluster.workers=2"],
            "cluster=debug has one worker",
        ),
        (
            ["run", "experiment=demo", "arms.deacl.train.batch_size=5000"],
            "5000",
        ),
        (
            ["run", "experiment=demo", "protocol.train.batch_size=99", *TWO_WORKERS],
            "does not split over 2 workers",
        ),
        (["run", "experiment=demo", "data=cifar10", "data.root=/nowhere"], "/nowhere"),
        (
            ["run", "experiment=demo", "arms.simclr.teacher=deacl"],
            "its own teacher",
        ),
        (
            ["run", "experiment=demo", "strategy.precision=fp64", "cluster=debug"],
            "strategy.precision=fp64",
        ),
        (["run", "experiment=demo", "arms.deacl.objective.weight=abc"], "deacl"),
        (["run", "experiment=demo", "views@arms.simclr.views=none"], "simclr"),
        (
            ["run", "experiment=demo", "protocol.optim.schedule.factor=null"],
            "probe cannot run",
        ),
        (["run", "experiment=demo", "+arms.simclr.objective.hue=1"], "takes no hue"),
        (["run", "experiment=demo", "suite.curve.attack=pgd50"], "pgd50"),
        (["run", "experiment=demo", "suite.micro_batch=0"], "micro_batch=0"),
        (
            ["run", "experiment=demo", "attack@suite.attacks.apgd_ce=pgd20"],
            "has the name of another",
        ),
        (["run", "experiment=demo", "seed=abc"], "seed=abc"),
        (["run", "experiment=demo", "arms.simclr.optim.lr=nan"], "NaN"),
        (["run", "experiment=demo", "betons=s3://bucket"], "only folders"),
        (["evaluate", "model=/nowhere", "name=x"], "model.safetensors is missing"),
        (["report", "nothing"], "no results.json"),
        (["run", "experiment=demo", "tasks={a: [0,12]}"], "tasks.a takes places"),
        (["run", "experiment=demo", "tasks={a: [0,1], b: [2]}"], "tasks.b has one"),
        (["run", "experiment=demo", "tasks=[0,1]"], "such as tasks.NAME=VALUE"),
        (
            [
                *("run", "experiment=demo", "tasks={few: [6,7,8,9], many: [0,1,2,3]}"),
                "protocol.train.batch_size=516",
            ],
            "task few: protocol.train.batch_size=516 is more than the 514 training",
        ),
        (
            ["run", "experiment=demo", "seed=0,1", "--multirun"],
            "2 runs are named demo, and each would replace the one before",
        ),
        (
            ["pretrain", "name=x", "data=digits", "init=/nowhere"],
            "no model at /nowhere",
        ),
        (
            [
                *("pretrain", "name=x", "data=digits", "init=/nowhere"),
                *("objective=deacl", "views=weak", "teacher=/nowhere"),
            ],
            "set objective.start_from_teacher=false, or leave out init=",
        ),
    ],
    ids=lambda value: "-".join(value)[-40:] if isinstance(value, list) else "",
)
def test_a_mistake_gets_one_line(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = [f"storage={tmp_path}"]
    own += [] if arguments[0] == "report" else ["loader=memory"]
    monkeypatch.setattr("sys.argv", ["rrl", *arguments, *own])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(f"rrl {arguments[0]}: ")
    assert said in line


def test_plan_shows_stages_and_writes_nothing(tmp_path: Path) -> None:
    printed = rrl(tmp_path, "run", *TINY, "--plan")
    for stage in ("pretrain-simclr", "pretrain-deacl", "probe-deacl"):
        assert stage in printed
    for unit in ("MB", "min", "steps"):
        assert unit in printed
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_pretrain_then_evaluate_then_report(tmp_path: Path) -> None:
    common = ["data=digits", "ball=linf_005", "cluster=debug", "loader=memory"]
    rrl(
        tmp_path,
        "pretrain",
        *common,
        "name=teacher",
        "model=small_cnn",
        "model.backbone.width=4",
        "views=digits",
        "objective.projector.hidden=16",
        "train.batch_size=128",
        "train.max_steps=6",
        "probe=none",
    )
    model = tmp_path / "runs/teacher/models/encoder"
    assert read_json(model / "model.json")["classes"] == []
    rrl(
        tmp_path,
        "pretrain",
        *common,
        "name=student",
        "model=small_cnn",
        "model.backbone.width=4",
        "objective=deacl",
        "views=digits_weak",
        "optim=sgd",
        f"teacher={model}",
        "train.batch_size=128",
        "train.max_steps=6",
        "probe=none",
    )
    student = tmp_path / "runs/student/models/encoder"
    about = read_json(student / "model.json")
    assert (
        about["training"]["teacher_sha256"] == read_json(model / "model.json")["sha256"]
    )
    assert (
        load_file(student / "model.safetensors").keys()
        == load_file(model / "model.safetensors").keys()
    )
    printed = rrl(
        tmp_path,
        "evaluate",
        *common,
        f"model={student}",
        "name=attacked",
        "views@protocol.views=digits_weak",
        "protocol.train.batch_size=128",
        "protocol.train.epochs=2",
        "evaluate.limit=70",
        "suite.curve.relative_eps=[]",
        "suite.attacks.apgd_ce.steps=5",
    )
    assert "70 test images" in printed
    found = read_json(tmp_path / "runs/attacked/results.json")["arms"]["encoder"]
    assert found["components"]["clean"]["count"] == 70
    assert found["worst"]["value"] <= found["components"]["clean"]["value"]
    (tmp_path / "runs/attacked/report.md").unlink()
    rrl(tmp_path, "report", "attacked")
    assert (tmp_path / "runs/attacked/report.md").is_file()
    # The classifier that was attacked is kept, and needs no probe a second time.
    classifier = tmp_path / "runs/attacked/classifiers/encoder"
    again = rrl(
        tmp_path,
        "evaluate",
        *common,
        f"model={classifier}",
        "name=again",
        "evaluate.limit=70",
        "suite.curve.relative_eps=[]",
        "suite.attacks.apgd_ce.steps=5",
    )
    assert "probe-" not in again
    repeated = read_json(tmp_path / "runs/again/results.json")["arms"]["encoder"]
    assert repeated["components"] == found["components"]


@pytest.mark.slow
def test_prepare_writes_files_once(tmp_path: Path) -> None:
    pytest.importorskip("ffcv", reason="FFCV is not installed")
    arguments = ["prepare", "data=digits", "splits=[train]"]
    rrl(tmp_path, *arguments)
    (file,) = (tmp_path / "betons").glob("*.beton")
    written = file.stat().st_mtime_ns
    rrl(tmp_path, *arguments)
    assert file.stat().st_mtime_ns == written
