"""Settings that a method cannot be trained with: said before anything is."""

from pathlib import Path

import pytest

from rrl_dist.models.artefact import save_artefact
from rrl_dist.training.build import build_encoder
from tests.composing import compose
from tests.mistakes.commands import refused
from tests.mistakes.listing import told

NARROW = ("model=tiny_cnn", "model.backbone.width=2")
SMALL = ("data=digits", "loader=memory", "cluster=debug", "name=x", "probe=none")
HEAD = ("objective.projector.hidden=8", "objective.projector.out=4")

# What is wrong, what was typed and is shown, what was typed beside it.
TOLD = [
    ("one view for a method of two", ["pretrain", "views=weak"], HEAD),
    (
        "two views for a method of one",
        ["pretrain", "objective=deacl", "teacher=FOLDER/model"],
        ("optim=sgd",),
    ),
    (
        "two views for an arm that reads one",
        ["run", "experiment=demo", "views@arms.deacl.views=digits"],
        (),
    ),
    (
        "worst views of a method that reads one",
        ["pretrain", "objective=adversarial", "objective/base=supervised"],
        (),
    ),
    ("a temperature of zero", ["pretrain", "objective.temperature=0"], HEAD),
    ("a head without layers", ["pretrain", "objective.projector.layers=0"], HEAD),
    (
        "a weight that is no number",
        ["pretrain", "objective=spectral", "objective.weight=nan"],
        (),
    ),
    (
        "an estimator that is none",
        ["pretrain", "objective=worst_case_mi", "objective.estimator=mine"],
        ("views=weak",),
    ),
    (
        "a loss that is not finite",
        ["pretrain", "objective=barlow", "objective.eps=-9"],
        HEAD,
    ),
]


@pytest.mark.parametrize(
    ("case", "typed", "beside"), TOLD, ids=[case for case, _, _ in TOLD]
)
def test_it_is_told_in_one_line(
    case: str,
    typed: list[str],
    beside: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = compose("pretrain", *NARROW, "data=digits")["model"]
    encoder = build_encoder(model, seed=0)
    folder = tmp_path / "model"
    save_artefact(folder, encoder, model=model, classes=(), training={})
    own = [*NARROW, *SMALL, *beside, f"storage={tmp_path / 'runs'}"]
    arguments = [word.replace("FOLDER", str(tmp_path)) for word in typed]
    line = refused([*arguments, *own], monkeypatch, capsys)
    told(case, f"rrl {' '.join(typed)}", line, folder=tmp_path)
    assert not list((tmp_path / "runs").rglob("stages"))
