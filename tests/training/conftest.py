from collections.abc import Iterator
from pathlib import Path

import pytest

from rrl_dist.core.store import Store, open_store
from tests.core.s3 import s3_server
from tests.training.stages import pretraining, train


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished SimCLR run of twelve steps."""
    folder = tmp_path_factory.mktemp("teacher")
    train(pretraining("simclr"), folder)
    return folder


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """Address of a store on a real S3 server."""
    with s3_server() as address:
        yield address


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A folder, and a place on that server."""
    if request.param == "folder":
        return open_store(tmp_path / "store")
    body, _, options = request.getfixturevalue("s3").partition("?")
    return open_store(f"{body}/{tmp_path.name}?{options}")
