"""`rrl finetune` and its protocols, as a person runs them.

Most commands run in this process: imports would take longer than what they do.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rrl_dist.cli.main import main
from rrl_dist.core.storage import read_json
from rrl_dist.training.build import load_classifier, load_encoder
from tests.cli.harness import TINY, kill_when, rrl
from tests.composing import names
from tests.mistakes.listing import told

pytestmark = pytest.mark.slow

COMMON = ("data=digits", "data.size=8", "ball=linf_005", "loader=memory")
HERE = (*COMMON, "cluster=debug", "cluster.threads=1")
HEAD = (
    "views@protocol.views=none",
    "protocol.train.batch_size=128",
    "protocol.train.epochs=2",
    "protocol.train.checkpoint_every=4",
)
ATTACKED = (
    *("suite=pgd20", "suite.curve=null"),
    *("evaluate.limit=40", "evaluate.gallery=0"),
)


Run = Callable[..., str]


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """A command in this process, with everything it keeps under `tmp_path`; returns
    what was printed."""

    def command(*arguments: str) -> str:
        own = [f"storage={tmp_path / 'runs'}", f"betons={tmp_path / 'betons'}"]
        monkeypatch.setattr("sys.argv", ["rrl", *arguments, *own])
        main()
        return capsys.readouterr().out

    return command


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of some epochs of SimCLR."""
    folder = tmp_path_factory.mktemp("pretrained")
    own = [
        *("model=tiny_cnn", "model.backbone.width=8", "views=digits", "optim=sgd"),
        *("objective.projector.hidden=16", "objective.projector.out=8"),
        *("train.batch_size=128", "train.epochs=3", "probe=none"),
    ]
    rrl(folder, "pretrain", *HERE, *own, "name=simclr")
    return folder / "runs/simclr/models/encoder"


def linear(protocol: str) -> bool:
    """Whether it trains a head alone."""
    return protocol.startswith(("slf", "alf"))


@pytest.mark.parametrize("protocol", names("protocol"))
def test_every_protocol_leaves_a_classifier_that_is_evaluated(
    protocol: str, encoder: Path, tmp_path: Path, run: Run
) -> None:
    chosen = (f"protocol={protocol}", f"init={encoder}", "name=tuned")
    few = ("protocol.train.batch_size=8",) if protocol.endswith("_1") else ()
    run("finetune", *HERE, *HEAD, *few, *chosen)
    folder = tmp_path / "runs/tuned/classifiers/encoder"
    model, artefact = load_classifier(folder)
    before, known = load_encoder(encoder)
    state = model.encoder.state_dict()
    same = [torch.equal(v, state[k]) for k, v in before.state_dict().items()]
    # Mean and std of the images stay in any case.
    assert all(same) if linear(protocol) else sum(same) == 2
    assert artefact.training["encoder"]["sha256"] == known.sha256
    taught = artefact.training.get("teacher_sha256")
    assert taught == (known.sha256 if protocol == "urrl" else None)

    name = "slf" if protocol == "slf_small" else protocol
    run("evaluate", *HERE, *ATTACKED, f"model={folder}", "name=attacked")
    found = read_json(tmp_path / "runs/attacked/results.json")["arms"]["encoder"]
    assert (found["objective"], found["protocol"]) == ("SimCLR", name)
    if protocol != "aff_trades":
        return
    # `rrl evaluate` of the encoder does the same on its way.
    own = (*HEAD, f"protocol={protocol}", f"model={encoder}", "name=probed")
    run("evaluate", *HERE, *ATTACKED, *own)
    again = tmp_path / "runs/probed/classifiers/encoder/model.safetensors"
    assert again.read_bytes() == (folder / "model.safetensors").read_bytes()
    probed = read_json(tmp_path / "runs/probed/results.json")["arms"]["encoder"]
    assert probed == found


def test_adversarial_fine_tuning_makes_digits_harder_to_fool(
    encoder: Path, tmp_path: Path, run: Run
) -> None:
    """With enough epochs to learn them: 20 of the whole set."""
    robust, clean = {}, {}
    longer = ("protocol.train.epochs=20", "protocol.optim.lr=0.1")
    for protocol in ("slf", "aff_pgd"):
        chosen = (f"protocol={protocol}", f"init={encoder}", f"name={protocol}")
        run("finetune", *HERE, *HEAD[:2], *longer, *chosen)
        model = f"model={tmp_path / 'runs' / protocol / 'classifiers/encoder'}"
        own = ("suite=pgd20", "suite.curve=null", "evaluate.limit=200")
        run("evaluate", *HERE, *own, model, f"name={protocol}-attacked")
        results = tmp_path / "runs" / f"{protocol}-attacked" / "results.json"
        (found,) = read_json(results)["arms"].values()
        robust[protocol] = found["worst"]["value"]
        clean[protocol] = found["components"]["clean"]["value"]
    assert robust["aff_pgd"] > robust["slf"] + 0.2
    assert clean["aff_pgd"] > 0.6


def test_it_goes_on_where_it_was_killed_and_skips_what_is_done(
    encoder: Path, tmp_path: Path
) -> None:
    chosen = ("protocol=urrl", f"init={encoder}", "name=tuned")
    longer = (*HEAD[:2], "protocol.train.epochs=6", "protocol.train.checkpoint_every=4")
    command = ("finetune", *HERE, *longer, *chosen)
    rrl(tmp_path / "whole", *command)
    pattern = "runs/tuned/stages/probe-encoder-*/checkpoints/step-*.json"
    kill_when(tmp_path / "killed", pattern, command)
    assert not list((tmp_path / "killed/runs/tuned").glob("classifiers/*"))
    printed = rrl(tmp_path / "killed", *command)
    assert "running  probe-encoder" in printed
    file = "runs/tuned/classifiers/encoder/model.safetensors"
    assert (tmp_path / "killed" / file).read_bytes() == (
        tmp_path / "whole" / file
    ).read_bytes()
    assert "done     probe-encoder" in rrl(tmp_path / "killed", *command)
    # Another protocol under the same name is another run.
    other = [word for word in command if not word.startswith("protocol=")]
    line = rrl(tmp_path / "killed", *other, "protocol=aff_pgd", status=2)
    case = "a folder of another protocol's fine-tuning"
    shown = "rrl finetune name=tuned protocol=aff_pgd"
    told(case, shown, line.strip().splitlines()[-1], folder=tmp_path / "killed/runs")


def test_of_a_classifier_the_encoder_is_taken_and_this_is_said(
    encoder: Path, tmp_path: Path, run: Run
) -> None:
    first = ("protocol=aff_pgd", f"init={encoder}", "name=first")
    run("finetune", *HERE, *HEAD, *first)
    classifier = tmp_path / "runs/first/classifiers/encoder"
    own = ("protocol=slf", f"init={classifier}", "name=second", "data.classes=[0,1,2]")
    printed = " ".join(run("finetune", *HERE, *HEAD, *own).split())
    assert "is a classifier of 10 classes: its encoder is taken, and gets" in printed
    model, artefact = load_classifier(tmp_path / "runs/second/classifiers/encoder")
    assert artefact.classes == ("0", "1", "2")
    before = load_file(classifier / "model.safetensors")
    for key, value in model.encoder.state_dict().items():
        assert torch.equal(value, before[f"encoder.{key}"]), key
    # It is named by what trained its encoder last.
    second = tmp_path / "runs/second/classifiers/encoder"
    classes = ("data.classes=[0,1,2]", f"model={second}", "name=attacked")
    run("evaluate", *HERE, *ATTACKED, *classes)
    found = read_json(tmp_path / "runs/attacked/results.json")["arms"]["encoder"]
    assert (found["objective"], found["protocol"]) == ("PGDAT", "slf")


def test_another_model_under_the_same_name_is_refused(
    encoder: Path, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its classifier would take the place of the first one's."""
    run("finetune", *HERE, *HEAD, f"init={encoder}", "name=tuned")
    other = tmp_path / "runs/tuned/classifiers/encoder"
    with pytest.raises(SystemExit):
        run("finetune", *HERE, *HEAD, f"init={other}", "name=tuned")
    assert "holds another experiment (init: weights" in capsys.readouterr().err


def test_two_workers_fine_tune_as_one_does(encoder: Path, tmp_path: Path) -> None:
    chosen = (*HEAD, "protocol=urrl", f"init={encoder}", "name=tuned")
    relations = "protocol.objective.form=relations"
    rrl(tmp_path / "one", "finetune", *HERE, *chosen, relations)
    two = ("cluster=local", "cluster.workers=2")
    rrl(tmp_path / "two", "finetune", *COMMON, *two, *chosen, relations)
    file = "runs/tuned/classifiers/encoder/model.safetensors"
    one, other = (load_file(tmp_path / name / file) for name in ("one", "two"))
    for key, value in one.items():
        torch.testing.assert_close(other[key], value, rtol=1e-3, atol=1e-4, msg=key)


def test_an_experiment_fine_tunes_every_arm(tmp_path: Path, run: Run) -> None:
    short = [word for word in TINY if not word.startswith(("suite", "evaluate"))]
    own = ("protocol=aff_trades", "protocol.train.epochs=1", "loader=memory")
    run("run", *short, *own, *ATTACKED, *HERE[-2:], "data.size=8")
    demo = tmp_path / "runs/demo"
    for arm in ("simclr", "deacl"):
        found = read_json(demo / "results.json")["arms"][arm]
        assert found["protocol"] == "aff_trades"
        about = read_json(demo / "classifiers" / arm / "model.json")["training"]
        assert about["optim"]["lr"] == 0.01, "its own, not that of another protocol"
        one, other = (
            load_file(demo / kind / arm / "model.safetensors")
            for kind in ("models", "classifiers")
        )
        weight = next(key for key in one if key.endswith("weight"))
        assert not torch.equal(one[weight], other[f"encoder.{weight}"])


def test_an_arm_with_labels_gets_another_head_by_the_protocol(
    tmp_path: Path, run: Run
) -> None:
    own = [
        *("model=tiny_cnn", "model.backbone.width=4", "objective=pgd_at", "views=none"),
        *("optim=sgd", "train.batch_size=128", "train.max_steps=4", "probe=none"),
    ]
    run("pretrain", *HERE, *own, "name=labelled")
    model = tmp_path / "runs/labelled/models/encoder"
    # The model itself is evaluated with the head that it was trained with.
    run("evaluate", *HERE, *ATTACKED, f"model={model}", "name=attacked")
    found = read_json(tmp_path / "runs/attacked/results.json")["arms"]["encoder"]
    assert (found["objective"], found["protocol"]) == ("PGDAT", None)
