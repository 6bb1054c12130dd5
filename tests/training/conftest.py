from pathlib import Path

import pytest

from tests.training.stages import pretraining, train


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished SimCLR run of twelve steps."""
    folder = tmp_path_factory.mktemp("teacher")
    train(pretraining("simclr"), folder)
    return folder
