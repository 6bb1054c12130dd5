"""Calibration of an evaluation's outputs, against its rows and the model itself."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import Tensor
from torchmetrics.classification import MulticlassCalibrationError

from rrl_dist.core.calibration import BINNING, BINS, Calibration
from rrl_dist.core.columns import Columns
from rrl_dist.core.errors import UserError
from rrl_dist.core.records import Row
from rrl_dist.core.storage import read_json
from rrl_dist.core.store import open_store
from rrl_dist.evaluate.calibration import calibration_of, worst_outputs
from rrl_dist.evaluate.grid import Link
from rrl_dist.evaluate.robust import Evaluator
from rrl_dist.evaluate.surrogates import load_models
from rrl_dist.models.encoder import Classifier
from rrl_dist.training.build import load_classifier
from tests.evaluate.jobs import COMPONENTS, LIMIT, Job, chosen, job_of, made, rows_in
from tests.evaluate.jobs import run as evaluate

KINDS = ["gaussian_noise", "contrast"]
FULL = ("clean", "pgd4-linf@0.03", "apgd-ce-linf@0.03")


@pytest.fixture(scope="module")
def job(classifier: Path) -> Job:
    """Attacks, a curve and corruptions."""
    job = job_of(classifier, "evaluate.gallery=0")
    corruptions = {"kinds": KINDS, "severities": [1, 5]}
    return {**job, "suite": {**job["suite"], "corruptions": corruptions}}


@pytest.fixture(scope="module")
def folder(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("calibrated")
    evaluate(job, made)
    return made


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    calibration: dict[str, Any] = read_json(folder / "results.json")["calibration"]
    return calibration


def of_rows(rows: list[Row]) -> dict[str, dict[str, float | int]]:
    """The errors, with rows in the other order."""
    rows = rows[::-1]
    errors = Calibration.of(
        np.array([row.index for row in rows]),
        np.array([row.confidence for row in rows]),
        np.array([row.predicted == row.label for row in rows]),
    ).errors(LIMIT)
    return {key: getattr(errors, key).as_dict() for key in ("ece", "rms", "mce")}


def test_clean_outputs_are_as_torchmetrics_has_them(
    job: Job, found: dict[str, Any]
) -> None:
    model, _ = load_classifier(job["classifier"].path)
    x, y, _ = chosen(job)
    with torch.no_grad():
        p = model(x).softmax(1)
    assert float(p.max()) < 1
    for key, norm in (("ece", "l1"), ("rms", "l2"), ("mce", "max")):
        expected = float(MulticlassCalibrationError(10, BINS, norm)(p, y))
        value = found["components"]["clean"][key]["value"]
        assert value == pytest.approx(expected, abs=2e-5)


def test_each_component_is_of_its_own_rows(folder: Path, found: dict[str, Any]) -> None:
    rows = rows_in(folder)
    corrupted = {f"{kind}@{severity}" for kind in KINDS for severity in (1, 5)}
    assert found["binning"] == BINNING
    assert set(found["components"]) == COMPONENTS | corrupted
    for name, errors in found["components"].items():
        assert errors == of_rows([row for row in rows if row.component == name])
    pooled = [row for row in rows if row.component in corrupted]
    assert found["corrupted"] == of_rows(pooled)
    assert found["corrupted"]["ece"]["count"] == LIMIT


def test_the_worst_case_is_of_the_worst_output_of_each_image(
    folder: Path, found: dict[str, Any]
) -> None:
    rows: dict[int, list[Row]] = {}
    for row in rows_in(folder):
        if row.component in FULL:
            rows.setdefault(row.index, []).append(row)
    worst = [max(own, key=lambda r: (not r.correct, r.loss)) for own in rows.values()]
    assert found["worst"] == of_rows(worst)
    bins = found["reliability"]["worst"]
    assert sum(one["count"] for one in bins) == LIMIT
    right = sum(one["count"] * (one["accuracy"] or 0) for one in bins)
    worst_accuracy = read_json(folder / "results.json")["worst"]["value"]
    assert right / LIMIT == pytest.approx(worst_accuracy, abs=1e-5)
    # Attacks make answers wrong and sure.
    assert found["worst"]["ece"]["value"] > found["components"]["clean"]["ece"]["high"]


def test_diagrams_count_all_outputs(found: dict[str, Any]) -> None:
    diagrams = found["reliability"]
    for kind, outputs in (("clean", LIMIT), ("corrupted", 4 * LIMIT)):
        assert len(diagrams[kind]) == BINS
        assert sum(one["count"] for one in diagrams[kind]) == outputs
        for place, one in enumerate(diagrams[kind]):
            inside = one["confidence"]
            assert (inside is None) == (one["count"] == 0)
            assert inside is None or place <= inside * BINS + 1e-4 <= place + 1.01


def test_it_does_not_depend_on_how_work_is_cut(
    job: Job, folder: Path, tmp_path: Path
) -> None:
    evaluate({**job, "unit_atoms": 2}, tmp_path)
    mine, theirs = (each / "results.json" for each in (tmp_path, folder))
    assert mine.read_bytes() == theirs.read_bytes()


def test_among_equals_the_first_component_is_taken() -> None:
    rows = [made(i, "x", correct=i > 0) for i in range(3)]
    first = [replace(row, confidence=0.9) for row in rows]
    later = [replace(row, confidence=0.3) for row in rows]
    parts = [Columns.of_rows(each) for each in (first, later)]
    assert worst_outputs(parts).confidence.tolist() == [0.9] * 3
    assert worst_outputs(parts[::-1]).confidence.tolist() == [0.3] * 3
    with pytest.raises(ValueError, match="different samples"):
        worst_outputs([parts[0], Columns.of_rows(later[1:])])


def test_an_answer_counts_with_its_own_confidence() -> None:
    """A model that draws at random may say something else than the attack saw."""
    row = replace(made(0, "x", correct=False), predicted=0)  # the label
    errors = calibration_of("x", Columns.of_rows([row])).errors(1)
    assert (row.confidence, errors.ece.value) == (1.0, 0.0)


def test_logits_without_probabilities_are_refused_with_the_first_rows(
    job: Job, tmp_path: Path
) -> None:
    """The loss is worked out in float64, where they are finite."""
    models = load_models(job["classifier"], {})
    with torch.no_grad():
        weight = cast(Classifier, models.subject).head.weight
        cast(Tensor, weight).sign_().mul_(3e38)
    store = open_store(tmp_path)
    evaluator = Evaluator(job, models, store, torch.device("cpu"))
    with pytest.raises(UserError, match="logits or features at sample"):
        evaluator.rows(Link("clean"), range(8))


def test_a_confidence_that_is_no_number_is_told_in_a_line() -> None:
    row = replace(made(0, "clean", correct=True), confidence=float("nan"))
    with pytest.raises(UserError, match="clean: 1 of 1 confidences") as caught:
        calibration_of("clean", Columns.of_rows([row]))
    assert "\n" not in str(caught.value)
