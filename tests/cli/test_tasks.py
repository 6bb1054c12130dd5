"""Tasks, seeds and fine-tuning, each as a person runs it."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rrl_dist.cli.progress import Terminal
from rrl_dist.core.storage import read_json
from rrl_dist.data.prepare import beton_of
from rrl_dist.experiment import Experiment
from rrl_dist.training.build import load_classifier, load_encoder
from tests.cli.harness import TINY, rrl
from tests.composing import compose

pytestmark = pytest.mark.slow

SEEN = "[0,1,2,3,4,5]"
CUT = (
    *TINY,
    "cluster=debug",
    "loader=memory",
    "data.size=8",
    "suite=representation",
    "suite.search.attack.steps=4",
    f"data.classes={SEEN}",
    f"tasks={{seen: {SEEN}, unseen: [6,7,8,9]}}",
    "evaluate.gallery=1",
    "evaluate.limit=20",
    "probe=none",
    "protocol.train.epochs=1",
)


@pytest.fixture(scope="module")
def cut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of an experiment with two tasks, in one command."""
    folder = tmp_path_factory.mktemp("cut")
    rrl(folder, "run", *CUT, "--multirun", "seed=0,1", "name=cut-${seed}")
    return folder


def test_each_arm_has_a_head_and_numbers_for_each_task(cut: Path) -> None:
    run = cut / "runs" / "cut-0"
    found = read_json(run / "results.json")
    entries = [f"{arm}-{task}" for arm in ("simclr", "deacl") for task in TASKS]
    assert found["arm_order"] == entries
    for entry in entries:
        arm = found["arms"][entry]
        assert f"{arm['arm']}-{arm['task']}" == entry
        model, artefact = load_classifier(run / "classifiers" / entry)
        assert artefact.classes == TASKS[arm["task"]]
        # One encoder for all tasks, with its own mean and std.
        encoder, own = load_encoder(run / "models" / arm["arm"])
        assert artefact.training["encoder"]["sha256"] == own.sha256
        for name, value in encoder.state_dict().items():
            assert torch.equal(model.encoder.state_dict()[name], value)
        assert all(b["loss"]["value"] <= b["bound"]["value"] for b in arm["bound"])
    assert read_json(run / "cost.json")["arms"].keys() == set(entries)
    assert (run / "gallery" / "deacl-unseen.npz").is_file()


TASKS = {"seen": tuple("012345"), "unseen": tuple("6789")}


def test_betons_are_written_of_what_is_trained_on_and_of_nothing_else(
    tmp_path: Path,
) -> None:
    pytest.importorskip("ffcv", reason="FFCV is not installed")
    config = {
        **compose("run", *CUT, "loader=ffcv", "cluster.threads=1"),
        "betons": str(tmp_path / "betons"),
    }
    experiment = Experiment(config, tmp_path, lambda: {}, Terminal())
    experiment.prepare()
    trained = [experiment.whole.read()["pretrain"]]
    trained += [part.read()["train"] for part in experiment.prepared.tasks]
    folder = tmp_path / "betons"
    assert set(folder.glob("*.beton")) == {beton_of(folder, one) for one in trained}


def test_a_second_start_skips_everything_and_a_new_task_runs_alone(cut: Path) -> None:
    before = (cut / "runs/cut-1/results.json").read_bytes()
    again = (*CUT, "seed=1", "name=cut-1")
    assert "running  pretrain" not in rrl(cut, "run", *again)
    assert (cut / "runs/cut-1/results.json").read_bytes() == before
    more = f"tasks={{seen: {SEEN}, unseen: [6,7,8,9], pair: [0,9]}}"
    others = [word for word in again if not word.startswith("tasks=")]
    printed = rrl(cut, "run", *others, more)
    ran = [line.split()[1] for line in printed.splitlines() if "running " in line]
    assert [name for name in ran if name not in ("data", "report")] == [
        *("probe-simclr-pair", "evaluate-simclr-pair"),
        *("probe-deacl-pair", "evaluate-deacl-pair"),
    ]
    rrl(cut, "run", *again)
    assert (cut / "runs/cut-1/results.json").read_bytes() == before


def test_seeds_are_reported_together_and_against_an_arm(cut: Path) -> None:
    out = cut / "report"
    printed = rrl(cut, "report", "cut-0", "cut-1", f"out={out}", "against=simclr")
    assert "2 seeds (0, 1)" in printed
    terms = read_json(out / "terms.json")
    assert {(t["arm"], t["task"]) for t in terms["terms"]} == {
        ("deacl", "seen"),
        ("deacl", "unseen"),
    }
    results = [read_json(cut / f"runs/cut-{i}/results.json")["arms"] for i in (0, 1)]
    for term in terms["terms"]:
        if term["measure"] == "sigma_squared_sum":
            entry = f"deacl-{term['task']}"
            on = [
                arms[entry]["representation"]["sigma_squared_sum"] for arms in results
            ]
            assert term["on"] == pytest.approx(on, rel=1e-5)
            assert term["difference"]["low"] <= term["difference"]["mean"]


def test_fine_tuning_goes_on_from_a_model_of_a_run(cut: Path) -> None:
    model = cut / "runs/cut-0/models/simclr"
    common = ("data=digits", "data.size=8", "cluster=debug", "loader=memory")
    common += ("probe=none", "views=none", "optim=sgd", "split=train")
    common += ("train.batch_size=64", "train.max_steps=1", f"init={model}")
    rrl(cut, "pretrain", *common, "name=still", "objective=supervised", "optim.lr=0")
    tuned = cut / "runs/still/models/encoder"
    before, after = (load_file(m / "model.safetensors") for m in (model, tuned))
    weights = [name for name in before if name.endswith("weight")]
    assert all(torch.equal(before[n], after[f"encoder.{n}"]) for n in weights)
    assert weights
    smooth = ("objective=spectral", "objective/base=supervised", "name=smooth")
    rrl(cut, "pretrain", *common, *smooth)
    about = read_json(cut / "runs/smooth/models/encoder/model.json")
    assert about["model"] == read_json(model / "model.json")["model"]
    wrong = rrl(cut, "pretrain", *common, *smooth, "model=small_cnn", status=2)
    assert wrong.strip().startswith(
        "rrl pretrain: model.backbone.width is 32 here and 4 in init="
    )
    right = ("model=tiny_cnn", "model.backbone.width=4")
    rrl(cut, "pretrain", *common, *smooth, *right)
    small = ("suite.curve.relative_eps=[]", "evaluate.limit=20")
    rrl(
        cut,
        "evaluate",
        *common[:4],
        *small,
        "name=attacked",
        f"model={cut / 'runs/smooth/models/encoder'}",
    )
    found = read_json(cut / "runs/attacked/results.json")["arms"]["encoder"]
    assert found["objective"] == "Spectral(Supervised)"
