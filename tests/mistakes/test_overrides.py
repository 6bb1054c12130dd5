"""Settings that cannot be, on the command line."""

from contextlib import suppress
from pathlib import Path

import pytest

from rrl_dist.cli.app import run_command
from rrl_dist.cli.main import main
from rrl_dist.cli.overrides import nearest
from tests.mistakes.commands import refused
from tests.mistakes.listing import told

DEMO = "experiment=demo"

# What is wrong, what was typed, what the answer has to hold.
TOLD = [
    ("a setting misspelt at its front", ["run", DEMO, "trian.epochs=3"], "train.epoch"),
    (
        "a setting misspelt at its end",
        ["run", DEMO, "arms.simclr.train.epoch=3"],
        "the nearest is arms.simclr.train.epochs",
    ),
    (
        "a group misspelt",
        ["pretrain", "name=x", "objectiv=deacl"],
        "no setting objectiv; the nearest is objective",
    ),
    (
        "a group misspelt where it is put",
        ["run", DEMO, "views@arms.simclr.view=none"],
        "the nearest is views@arms.simclr.views",
    ),
    ("an experiment misspelt", ["run", "experiment=dmeo"], "the nearest is demo"),
    (
        "an option that is like no other",
        ["run", DEMO, "suite=foo"],
        "choose autoattack",
    ),
    ("an unknown setting forced in", ["run", DEMO, "+foo=1"], "no setting foo"),
    (
        "a misspelt setting forced in",
        ["run", DEMO, "++arms.simclr.train.epoch=3"],
        "the nearest is arms.simclr.train.epochs",
    ),
    ("a tilde", ["run", DEMO, "data.root=~/images"], 'data.root="$HOME/images"'),
    (
        "a value with brackets",
        ["run", DEMO, "data.root=/images (1)"],
        "'data.root=\"/images (1)\"'",
    ),
    ("two equals signs", ["run", DEMO, "name=b=c"], "'name=\"b=c\"'"),
    ("a setting without a value", ["run", DEMO, "seed"], "give seed=VALUE"),
    ("a value without a setting", ["run", DEMO, "=3"], "has no key"),
    ("a word for a number", ["run", DEMO, "evaluate.limit=abc"], "a whole number"),
    (
        "a fraction of an image",
        ["run", DEMO, "arms.deacl.train.batch_size=1.5"],
        "batch_size=1.5; set a whole number",
    ),
    ("a word for true", ["run", DEMO, "data.download=please"], "true or false"),
    (
        "one value for a list",
        ["run", DEMO, "suite.curve.relative_eps=1.0"],
        "such as [a,b]",
    ),
    ("several values", ["run", DEMO, "seed=0,1"], "add --multirun"),
    (
        "several runs of one name",
        ["run", DEMO, "--multirun", "seed=0,1"],
        "name each apart, such as 'name=demo-${seed}'",
    ),
    ("tasks without names", ["run", DEMO, "tasks=[0,1]"], "such as tasks.NAME=VALUE"),
    ("a reference to nothing", ["run", DEMO, "name=${run}"], "'run' not found"),
    ("a setting taken away", ["run", DEMO, "~seed"], "seed is needed"),
    (
        "a group taken away",
        ["run", DEMO, "model=null"],
        "choose model=dim_cnn|plain_cnn|resnet18|",
    ),
    (
        "a file's name for what is in it",
        ["pretrain", "name=x", "objective=tarrl", "objective.base=moco"],
        "choose objective/base=moco",
    ),
    (
        "a file's name for what is in it, in an arm",
        ["run", "experiment=terms_digits", "arms.tarrl.objective.base=mocco"],
        "choose objective/base@arms.tarrl.objective.base=acl|adversarial|",
    ),
    (
        "an arm without a method",
        ["run", DEMO, "+arms.mine.teacher=simclr"],
        "arms.mine.objective is not set",
    ),
    (
        "arms without an experiment",
        ["run", "arms.simclr.train.epochs=3"],
        "choose one of acl_cifar10",
    ),
    ("an unknown option", ["run", DEMO, "--verbose"], "--verbose is no option"),
]


@pytest.mark.parametrize(
    ("case", "arguments", "said"), TOLD, ids=[case for case, _, _ in TOLD]
)
def test_a_mistake_is_told_in_one_line(
    case: str,
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = refused(arguments, monkeypatch, capsys)
    assert said in line
    told(case, f"rrl {' '.join(arguments)}", line)


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", DEMO, "seed=1.0"],
        ["run", DEMO, "seed="],
        ["run", DEMO, "arms=3"],
        ["run", DEMO, "evaluate={limt: 3}"],
        ["run", DEMO, "seed.x=1"],
        ["run", DEMO, "+seed=1"],
        ["run", "+experiment=demo"],
        ["run", "experiment=3"],
        ["run", DEMO, "~foo"],
        ["run", DEMO, "data=[digits,mnist]"],
        ["run", DEMO, "hydra/launcher=none"],
        ["run", DEMO, "--multirun", "seed=0,x"],
        ["run", DEMO, "--cfg", "nothing"],
        ["run", DEMO, "--cfg", "job", "seed=1"],
        ["run", "-cn", "nothing"],
        ["report", "runs=demo"],
        ["prepare", "model=small_cnn"],
    ],
    ids=" ".join,
)
def test_whatever_hydra_refuses_takes_one_line(
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    refused(arguments, monkeypatch, capsys)


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (["run", "--help"], "every stage of an experiment"),
        (["run", "--hydra-help"], "--multirun"),
        (["run", DEMO, "+arms.simclr.split=train", "--cfg", "job"], "split: train"),
        (["run", DEMO, "~arms.deacl", "-c", "job"], "simclr"),
        (["run", DEMO, "evaluate.limit=null", "--cfg", "job"], "limit: null"),
        (["run", DEMO, "suite.curve=null", "--cfg", "job"], "curve: null"),
        (["run", DEMO, "arms.deacl.train.epochs=1.5", "-c", "job"], "epochs: 1.5"),
        (["run", DEMO, "arms.deacl.teacher=null", "-c", "job"], "teacher: null"),
        (["pretrain", "name=a", "optim.lr_per=null", "-c", "job"], "lr_per: null"),
        (["pretrain", "-cn", "report", "-c", "job"], "runs: ???"),
        (
            ["run", DEMO, "arms.deacl.views=${arms.simclr.views}", "-c", "job"],
            "views: ${arms.simclr.views}",
        ),
        (["pretrain", "name=${objective}", "-c", "job"], "${objective}"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_right_is_let_through(
    arguments: list[str],
    shown: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.argv", ["rrl", *arguments])
    with suppress(SystemExit):  # how Hydra leaves after --help
        main()
    assert shown in capsys.readouterr().out


def test_tab_completion_goes_on_working(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COMP_LINE", "rrl_run experiment=de")
    monkeypatch.setenv("COMP_POINT", "21")
    monkeypatch.setattr("sys.argv", ["rrl", "run", "-sc", "query=bash"])
    main()
    assert "experiment=demo" in capsys.readouterr().out.split()


def test_every_job_of_a_multirun_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = [f"hydra.sweep.dir={tmp_path}", "threads=1,3", "--multirun"]
    monkeypatch.setattr("sys.argv", ["rrl prepare", "data=digits", *sweep])
    started = []
    run_command("prepare", lambda config, _: started.append(config["threads"]))
    assert started == [1, 3]


def test_the_nearest_setting() -> None:
    known = ["train.epochs", "arms.a.train.epochs", "arms.b.train.epochs", "seed"]
    assert nearest("train.epoch", known) == ["train.epochs"]
    assert nearest("trian.epochs", known[1:]) == known[1:3]
    assert nearest("sead", known) == ["seed"]
    assert nearest("colour", known) == []
