"""Images that are made on other classifiers, in an evaluation."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from rrl_dist.attacks import Linf, transfer_matrix
from rrl_dist.core.errors import UserError
from rrl_dist.evaluate.images import chosen_images
from rrl_dist.evaluate.rehearsal import some_images
from rrl_dist.evaluate.source import Source
from rrl_dist.evaluate.subject import load_subject
from rrl_dist.evaluate.surrogates import (
    checked_surrogates,
    named_surrogates,
    suite_identity,
)
from rrl_dist.models.artefact import save_artefact
from rrl_dist.training.build import load_classifier
from tests.evaluate.jobs import Job, by_sample, chosen, job_of, run

MI_FGSM = Path(__file__).parents[2] / "configs" / "attack" / "mi_fgsm.yaml"


@pytest.fixture(scope="module")
def other(classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The classifier with changed weights."""
    folder = tmp_path_factory.mktemp("models") / "other"
    module, artefact = load_classifier(classifier)
    with torch.no_grad():
        for weight in module.parameters():
            shift = torch.rand(weight.shape, generator=torch.Generator().manual_seed(1))
            weight.mul_(0.7 + 0.6 * shift)
    save_artefact(
        folder, module, model=artefact.model, classes=artefact.classes, training={}
    )
    return folder


@pytest.fixture(scope="module")
def job(classifier: Path, other: Path) -> Job:
    made = job_of(classifier, "ball.eps=0.03", "evaluate.gallery=0")
    attacks = {"mi_fgsm": OmegaConf.to_container(OmegaConf.load(MI_FGSM))}
    suite = {**made["suite"], "attacks": attacks, "curve": None}
    surrogates = {"other": Source(str(other)), "self": Source(str(classifier))}
    return {**made, "suite": suite, "surrogates": surrogates}


def test_rows_are_those_of_the_matrix(
    job: Job, classifier: Path, other: Path, tmp_path: Path
) -> None:
    results = run(job, tmp_path)
    models = {
        name: load_classifier(folder)[0]
        for name, folder in {"self": classifier, "other": other}.items()
    }
    x, y, index = chosen(job)
    matrix = transfer_matrix(models, x, y, ball=Linf(0.03), index=index, batch_size=32)
    targets = matrix.names.index("self")
    for source in ("self", "other"):
        name = f"mi-fgsm10-from-{source}-linf@0.03"
        rows = by_sample(tmp_path, name)
        flags = matrix.robust[matrix.names.index(source), targets]
        assert [rows[i].correct for i in index.tolist()] == flags.tolist()
        share = results["components"][name]["value"]
        assert share == pytest.approx(float(flags.float().mean()), abs=1e-6)
    right = matrix.robust[:, targets].sum(1)
    assert 0 < right[0] < right[1] < matrix.clean[targets].sum()


def test_surrogates_are_checked_and_named_by_their_weights(
    job: Job, classifier: Path, other: Path
) -> None:
    images = some_images(chosen_images(job))
    told: list[str] = []
    found = checked_surrogates({"other": other}, images, told.append)
    expected = load_classifier(other)[1].sha256
    source = Source(str(other), classes=10, folder=found["other"].folder)
    assert found == {"other": replace(source, sha256=expected)}
    assert told == []
    with pytest.raises(UserError, match="no model at"):
        checked_surrogates({"gone": other / "gone"}, images, told.append)


def test_paths_do_not_depend_on_where_a_worker_starts(
    job: Job, other: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(other.parent)
    images = some_images(chosen_images(job))
    (found,) = checked_surrogates({"o": other.name}, images, print).values()
    assert found.model == str(other)
    monkeypatch.chdir("/")
    assert load_subject(found).sha256 == found.sha256


@pytest.mark.parametrize("named", [None, {}, "arms", "simclr"])
def test_a_suite_of_surrogates_that_names_none_is_refused(named: object) -> None:
    with pytest.raises(UserError, match=r"suite\.surrogates=.*set \{NAME:MODEL\}"):
        named_surrogates({"surrogates": named}, {})
    assert named_surrogates({}, {}) == {}
    arms = {"simclr": Path("a")}
    assert named_surrogates({"surrogates": "arms"}, arms) == arms


def test_a_surrogate_of_other_classes_or_settings_is_refused(
    job: Job, other: Path
) -> None:
    images = some_images(chosen_images(job))
    for wrong, told in (
        ({"weights": "x.safetensors"}, "give model="),
        ({"model": str(other), "wait": 1}, "give model="),
        ({"model": "timm:resnet10t", "weights": "x.pt"}, "only .safetensors"),
    ):
        with pytest.raises(UserError, match=told):
            checked_surrogates({"o": wrong}, images, print)
    renamed = replace(images, classes=tuple(reversed(images.classes)))
    with pytest.raises(UserError, match="tells other classes apart"):
        checked_surrogates({"o": other}, renamed, print)


def test_rows_depend_on_what_surrogates_are_and_not_on_where(other: Path) -> None:
    suite = {"attacks": {}, "surrogates": {"o": "somewhere"}}
    source = Source(str(other), sha256="abc")
    told = suite_identity(suite, {"o": source})
    assert told == {"attacks": {}, "surrogates": {"o": "abc"}}
    assert suite_identity({"attacks": {}}, {}) == {"attacks": {}}
