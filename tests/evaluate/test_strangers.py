"""A module that shows logits alone is attacked as this project's own are."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rrl_dist.attacks.balls import Linf
from rrl_dist.attacks.cascade import Cascade
from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import read_json
from rrl_dist.evaluate.images import chosen_images
from rrl_dist.evaluate.plan import build_suite
from rrl_dist.evaluate.rehearsal import (
    check_suite,
    rehearse_subject,
    some_images,
)
from rrl_dist.evaluate.source import Source
from rrl_dist.evaluate.subject import Subject, load_subject
from rrl_dist.training.build import build
from tests.evaluate.jobs import (
    COMPONENTS,
    Job,
    by_sample,
    chosen,
    job_of,
    rows_in,
    run,
)
from tests.evaluate.strangers import MODULE, TEXT
from tests.training.stages import composed


@pytest.fixture(scope="module")
def known(classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A module that answers as the classifier does, and shows nothing of it."""
    folder = tmp_path_factory.mktemp("strangers")
    (folder / f"{MODULE}.py").write_text(TEXT)
    (folder / "known.txt").write_text(str(classifier))
    before = list(sys.path)
    yield folder
    sys.path[:] = before
    sys.modules.pop(MODULE, None)


@pytest.fixture(scope="module")
def attacked(
    known: Path, classifier: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("attacked")
    source = Source(f"{MODULE}:known", folder=str(known))
    run({**job_of(classifier), "classifier": source}, folder)
    return folder


def test_rows_are_those_of_the_classifier_inside(
    attacked: Path, finished: Path
) -> None:
    mine, theirs = rows_in(finished), rows_in(attacked)
    assert {row.component for row in theirs} == COMPONENTS
    for own, other in zip(mine, theirs, strict=True):
        assert other == replace(own, displacement=None, loss=other.loss)
        assert other.loss == pytest.approx(own.loss, rel=1e-4, abs=1e-5)


def test_results_lack_what_only_an_encoder_has(attacked: Path, finished: Path) -> None:
    mine, theirs = (
        read_json(folder / "results.json") for folder in (finished, attacked)
    )
    assert theirs == {**mine, "bound": None, "representation": None}
    assert mine["representation"] is not None
    assert not (attacked / "survey.json").exists()


def test_the_loss_is_the_logits_cross_entropy_in_double(
    job: Job, known: Path, attacked: Path
) -> None:
    model = load_subject(Source(f"{MODULE}:known", folder=str(known))).module
    x, y, index = chosen(job)
    rows = by_sample(attacked, "clean")
    with torch.no_grad():
        losses = F.cross_entropy(model(x).double(), y, reduction="none")
    found = torch.tensor([rows[i].loss for i in index.tolist()], dtype=torch.float64)
    torch.testing.assert_close(found, losses, rtol=1e-4, atol=1e-5)


def test_attacks_on_features_are_refused_and_no_others(
    classifier: Path, known: Path
) -> None:
    assert not Source(f"{MODULE}:known").has_encoder
    assert Source(str(classifier)).has_encoder
    check = partial(check_suite, f"{MODULE}:known", has_encoder=False)
    for name in ("pgd_apgd", "pgd20", "autoattack"):
        config = composed(f"suite={name}")
        check(build_suite(config["suite"], config["ball"], seed=0))
    config = composed("suite=representation")
    suite = build_suite(config["suite"], config["ball"], seed=0)
    check_suite("own", suite, has_encoder=True)
    with pytest.raises(UserError, match=r"feature20.*; choose a suite without it"):
        check(suite)
    # Inside of several attacks in turn it is found, too.
    inside = Cascade(
        label="all",
        attacks={"feature": partial(build, config["suite"]["attacks"]["feature20"])},
        ball=Linf(0.1),
        seed=0,
        micro_batch=4,
    )
    with pytest.raises(UserError, match="all-linf"):
        check(replace(suite, attacks={"all-linf@0.1": inside}))


def test_a_rehearsal_sees_images_of_all_the_set(job: Job) -> None:
    images = chosen_images(job)
    few = some_images(images)
    assert len(few) == 8
    # Spread over a folder, where one class comes after another.
    places = np.flatnonzero(np.isin(images.index, few.index))
    assert places[0] == 0
    assert places[-1] > len(images) * 3 // 4
    assert len(some_images(images.select([5]))) == 1


def test_a_module_is_given_back_as_it_was(job: Job, known: Path) -> None:
    source = Source(f"{MODULE}:known", folder=str(known))
    subject = load_subject(source)
    module = subject.module.train()
    before = {k: v.clone() for k, v in module.state_dict().items()}
    few = some_images(chosen_images(job))
    assert rehearse_subject(source, replace(subject, module=module), few) == []
    assert all(part.training for part in module.modules())
    after = module.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_log_probabilities_are_logits(job: Job, known: Path) -> None:
    """Their differences are, and so their gradients."""
    source = Source(f"{MODULE}:known", folder=str(known))
    inner = load_subject(source)
    few = some_images(chosen_images(job))
    for activation, refused in ((torch.nn.LogSoftmax, False), (torch.nn.Softmax, True)):
        module = torch.nn.Sequential(inner.module, activation(dim=1)).eval()
        subject = Subject(module, inner.sha256)
        if refused:
            with pytest.raises(UserError, match="return logits, without the softmax"):
                rehearse_subject(source, subject, few)
        else:
            rehearse_subject(source, subject, few)


def test_a_size_that_a_model_was_not_made_for_is_told_of(job: Job, known: Path) -> None:
    source = Source(f"{MODULE}:known", folder=str(known))
    subject = replace(load_subject(source), size=224)
    (line,) = rehearse_subject(source, subject, some_images(chosen_images(job)))
    assert line.endswith("is made for images of 224 x 224 and gets 8 x 8")
