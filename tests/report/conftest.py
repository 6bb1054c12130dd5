"""Finished runs, made up."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rrl_dist.core.aggregate import wilson
from rrl_dist.core.storage import write_json
from tests.evaluate.jobs import job_of, run, write_classifier

Results = dict[str, Any]


def share(value: float, count: int = 360) -> dict[str, float | int]:
    return wilson(round(value * count), count).as_dict()


def make_results(*arms: str, eps: float = 0.05, norm: str = "linf") -> Results:
    """Arms fall off the faster, the later they come; the first is the best."""
    entries = {}
    for place, arm in enumerate(arms):
        fall = [0.97 * np.exp(-(x * (place + 0.2))) for x in (0, 0.5, 1, 1.5, 2)]
        entries[arm] = {
            "objective": "simclr",
            "backbone": "small_cnn",
            "protocol": "slf",
            "components": {
                "clean": share(fall[0]),
                f"apgd-ce-{norm}@{eps}": share(fall[2] * 0.98),
                f"pgd20-{norm}@{eps}": share(fall[2]),
            },
            "worst": share(fall[2] * 0.97),
            "curve": [{"eps": eps * i / 2, **share(y)} for i, y in enumerate(fall)],
        }
    return {
        "schema": 2,
        "name": "demo",
        "data": "digits",
        "split": "test",
        "seed": 0,
        "seeds": 1,
        "norm": norm,
        "eps": eps,
        "arms": entries,
    }


def save_run(folder: Path, results: Results) -> Path:
    write_json(folder / "results.json", results)
    seconds = {arm: {"seconds": 90.0} for arm in list(results["arms"])[:1]}
    write_json(
        folder / "cost.json",
        {"stages": {}, "arms": seconds, "device": "CPU, 2 threads"},
    )
    return folder


def save_pictures(folder: Path, arm: str, n: int = 10, **changes: Any) -> Path:
    rng = np.random.default_rng(0)
    images = rng.random((n, 3, 8, 8), dtype=np.float32)
    delta = 0.05 * rng.choice(np.float32([-1, 1]), images.shape)
    arrays = {
        "images": images,
        "attacked": np.clip(images + delta, 0, 1).astype(np.float32),
        "labels": np.arange(n) % 3,
        "predicted_clean": np.arange(n) % 3,
        "predicted_attacked": np.zeros(n, np.int64),
        "classes": np.array(["cat", "dog", "ship"]),
        "eps": np.float64(0.05),
    }
    file = folder / "gallery" / f"{arm}.npz"
    file.parent.mkdir(parents=True, exist_ok=True)
    kept = {
        key: value for key, value in {**arrays, **changes}.items() if value is not None
    }
    np.savez(file, **kept)
    return file


@pytest.fixture(scope="session")
def results() -> Callable[..., Results]:
    return make_results


@pytest.fixture(scope="session")
def save() -> Callable[[Path, Results], Path]:
    return save_run


@pytest.fixture(scope="session")
def pictures() -> Callable[..., Path]:
    return save_pictures


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """What a real evaluation leaves: a small classifier under suite=representation."""
    folder = tmp_path_factory.mktemp("measured")
    write_classifier(folder / "classifier")
    job = job_of(
        folder / "classifier",
        "suite=representation",
        "suite.attacks.feature20.steps=3",
        "suite.search.attack.steps=2",
        "evaluate.limit=20",
        "evaluate.gallery=0",
    )
    return run(job, folder / "evaluation")
