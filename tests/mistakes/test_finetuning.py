"""Fine-tuning that cannot be: said in one line, before anything is trained."""

from pathlib import Path

import pytest

from rrl_dist.models.artefact import save_artefact
from rrl_dist.training.build import build_encoder
from tests.mistakes.commands import refused
from tests.mistakes.listing import told
from tests.mistakes.test_models import MODEL

SMALL = ("data=digits", "loader=memory", "cluster=debug", "name=x")
INIT = "init=FOLDER/model"

# What is wrong, what was typed, what the answer has to hold.
TOLD = [
    ("fine-tuning of nothing", [], "init is not set"),
    (
        "fine-tuning of a model that is not there",
        ["init=FOLDER/missing"],
        "no model at FOLDER/missing",
    ),
    ("a protocol misspelt", [INIT, "protocol=aff_trade"], "the nearest is aff_trades"),
    (
        "a protocol's setting misspelt",
        [INIT, "protocol=aff_trades", "protocol.objective.beta=3"],
        "no setting protocol.objective.beta",
    ),
    (
        "two views for a protocol that reads one",
        [INIT, "protocol=urrl", "views@protocol.views=simclr"],
        "reads one view",
    ),
    (
        "a protocol's batch of more images than there are",
        [INIT, "protocol=aff_pgd", "protocol.train.batch_size=5000"],
        "protocol.train.batch_size=5000 is more than the",
    ),
    (
        "an anchor for an encoder that is not trained",
        [INIT, "protocol=urrl", "protocol.objective.base.train_encoder=false"],
        "objective.base.train_encoder=true",
    ),
    (
        "a share of labels that is none",
        [INIT, "protocol=slf_10", "protocol.labels=10"],
        "protocol.labels=10; set the share of labels in (0, 1]",
    ),
    (
        "batch norm trained in a frozen encoder",
        [INIT, "protocol=alf_pgd", "protocol.batch_norm=trained"],
        "set protocol.batch_norm=frozen",
    ),
    (
        "a selection that there is none of",
        [INIT, "protocol=slf", "protocol.selection=best"],
        "protocol.selection=best; set last",
    ),
    (
        "features kept of images that change",
        [INIT, "protocol=slf_cached"],
        "set views@protocol.views=none",
    ),
    (
        "features kept of images that are attacked",
        [
            *(INIT, "protocol=alf_pgd", "protocol.cache_features=true"),
            "views@protocol.views=none",
        ],
        "set protocol.cache_features=false",
    ),
    (
        "an attack that begins without noise",
        [INIT, "protocol=alf_trades", "protocol.objective.start_std=0"],
        "set more than 0",
    ),
    (
        "an anchor of an unknown form",
        [INIT, "protocol=urrl", "protocol.objective.form=l2"],
        "choose cosine|relations",
    ),
    (
        "a split for fine-tuning, which has labels anyway",
        [INIT, "split=pretrain"],
        "there is no setting split",
    ),
]


@pytest.mark.parametrize(
    ("case", "typed", "said"), TOLD, ids=[case for case, _, _ in TOLD]
)
def test_it_is_told_in_one_line(
    case: str,
    typed: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    encoder = build_encoder(MODEL, seed=0)
    folder = tmp_path / "model"
    save_artefact(folder, encoder, model=MODEL, classes=(), training={})
    arguments = [word.replace("FOLDER", str(tmp_path)) for word in typed]
    own = [*SMALL, f"storage={tmp_path / 'runs'}"]
    line = refused(["finetune", *arguments, *own], monkeypatch, capsys)
    assert said in line.replace(str(tmp_path), "FOLDER")
    told(case, f"rrl finetune {' '.join(typed)}".strip(), line, folder=tmp_path)
    assert not list((tmp_path / "runs").rglob("stages"))


def test_without_a_name_there_is_no_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refused(["finetune", "init=model"], monkeypatch, capsys)
    assert line == "rrl finetune: name is not set; give name=VALUE"
