from pathlib import Path

import pytest

from tests.evaluate.jobs import REPRESENTATION, Job, job_of, run, write_classifier


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classifier")
    write_classifier(folder)
    return folder


@pytest.fixture(scope="session")
def finished(classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a whole evaluation in this process."""
    folder = tmp_path_factory.mktemp("finished")
    run(job_of(classifier), folder)
    return folder


@pytest.fixture(scope="session")
def represented(classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a whole evaluation with the suite for representations."""
    folder = tmp_path_factory.mktemp("represented")
    run(job_of(classifier, *REPRESENTATION), folder)
    return folder


@pytest.fixture
def job(classifier: Path) -> Job:
    return job_of(classifier)
