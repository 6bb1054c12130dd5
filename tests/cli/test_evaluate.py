"""`rrl evaluate` of anybody's classifier, as a person runs it."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file

from rrl_dist.core.storage import read_json
from rrl_dist.models.artefact import save_artefact
from rrl_dist.training.build import build_encoder
from tests.cli.harness import rrl
from tests.evaluate.jobs import rows_in, write_classifier
from tests.evaluate.strangers import MODULE, TEXT
from tests.mistakes.commands import refused
from tests.mistakes.test_models import MODEL

COMMON = ("data=digits", "loader=memory", "ball=linf_005", "evaluate.limit=70")


def stranger(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that answers as a trained classifier does, where Python finds it."""
    write_classifier(folder / "classifier")
    (folder / "known.txt").write_text(str(folder / "classifier"))
    (folder / f"{MODULE}.py").write_text(TEXT)
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.mark.slow
def test_a_function_is_evaluated_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stranger(tmp_path, monkeypatch)
    small = (*COMMON, "data.size=8", "suite=pgd20", f"model={MODULE}:known")
    printed = rrl(tmp_path, "evaluate", *small, "name=a", "cluster=debug")
    assert f"{MODULE}-known" in printed
    assert "70 test images" in printed
    one = tmp_path / "runs/a"
    assert (one / "report.md").is_file()
    numbers = read_json(one / "results.json")["arms"][f"{MODULE}-known"]
    assert numbers["components"]["clean"]["value"] > 0.5
    assert (numbers["objective"], numbers["bound"]) == (None, None)

    # The module travels to workers, which find the same.
    local = ("cluster=local", "cluster.workers=2")
    rrl(tmp_path, "evaluate", *small, "name=b", *local)
    other = tmp_path / "runs/b"
    assert read_json(other / "results.json")["arms"] == {f"{MODULE}-known": numbers}
    rows = [rows_in(next(run.glob("stages/evaluate-*"))) for run in (one, other)]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 2 * 70

    # A second time nothing is attacked.
    printed = rrl(tmp_path, "evaluate", *small, "name=a", "cluster=debug")
    assert f"done     evaluate-{MODULE}-known" in printed

    verify = ("evaluate", "verify=a", "evaluate.verify_samples=9", "cluster.threads=1")
    assert "18 rows made again, as they were" in rrl(tmp_path, *verify)


@pytest.mark.slow
def test_weights_and_a_folder_of_images_are_all_that_a_stranger_needs(
    tmp_path: Path,
) -> None:
    """Neither a model nor images of this project's: random weights, and files."""
    draws = np.random.default_rng(0)
    for label in ("ant", "bee", "cat"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(6):
            pixels = draws.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / f"photos/{label}/{number}.png")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = torchvision.models.resnet18(num_classes=3)
    save_file(theirs.state_dict(), tmp_path / "theirs.safetensors")
    printed = rrl(
        tmp_path,
        *("evaluate", "model=torchvision:resnet18", "name=theirs"),
        f"weights={tmp_path / 'theirs.safetensors'}",
        *("data=imagefolder", f"data.root={tmp_path / 'photos'}", "data.size=32"),
        *("ball=linf_4_255", "suite=pgd20", "suite.attacks.pgd20.steps=2"),
        *("suite.micro_batch=4", "cluster=debug", "cluster.threads=1"),
    )
    assert "images are normalized by mean=" in printed
    found = read_json(tmp_path / "runs/theirs/results.json")
    about = {key: found[key] for key in ("data", "split", "norm", "arm_order")}
    assert about == {
        "data": "imagefolder",
        "split": "test",
        "norm": "linf",
        "arm_order": ["torchvision-resnet18"],
    }
    (arm,) = found["arms"].values()
    assert arm["backbone"] == "torchvision:resnet18"
    clean, attacked = arm["components"].values()
    assert clean["count"] == attacked["count"] == 3  # a fixed fifth of each class
    assert arm["worst"]["value"] == attacked["value"] <= clean["value"]
    assert (tmp_path / "runs/theirs/report.md").is_file()


def test_a_probe_that_cannot_run_is_told_of_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = {"objective": {"_target_": "rrl_dist.objectives.simclr.SimCLR"}}
    encoder = build_encoder(MODEL, seed=0)
    folder = tmp_path / "model"
    save_artefact(folder, encoder, model=MODEL, classes=(), training=trained)
    own = [f"model={folder}", "name=x", f"storage={tmp_path}", "cluster=debug"]
    wrong = "protocol.optim.schedule.factor=null"
    line = refused(["evaluate", *COMMON, *own, wrong], monkeypatch, capsys)
    assert "probe cannot run with these settings" in line
    assert not list(tmp_path.glob("x/stages/*"))


@pytest.mark.slow
def test_a_finished_classifier_is_measured_by_all_that_encoders_are(
    tmp_path: Path,
) -> None:
    """Its critics are fitted on training images, which nothing else reads here."""
    trained = {"objective": {"_target_": "rrl_dist.objectives.pgd_at.PGDAT"}}
    write_classifier(tmp_path / "classifier", trained)
    few = ("steps=3", "batch_size=16", "attack_steps=1", "width=4", "embedding=8")
    printed = rrl(
        tmp_path,
        *("evaluate", *COMMON, "data.size=8", "cluster=debug", "cluster.threads=1"),
        *(f"model={tmp_path / 'classifier'}", "name=measured", "suite=compare_quick"),
        *(f"suite.vulnerability.{setting}" for setting in few),
        *("suite.attacks.apgd_ce.steps=3", "suite.attacks.apgd_dlr.steps=3"),
        *("suite.corruptions.severities=[1,5]", "evaluate.gallery=0"),
    )
    assert "Side by side" in (tmp_path / "runs/measured/report.md").read_text()
    assert "training images" not in printed
    (found,) = read_json(tmp_path / "runs/measured/results.json")["arms"].values()
    assert found["vulnerability"]["batches"] == 70 // 16
    assert len(found["corruptions"]["kinds"]) == 6
    assert len(found["corruptions"]["kinds"]["contrast"]["severities"]) == 2
    assert found["corruptions"]["kinds"]["contrast"]["error"]["count"] == 70
