from collections.abc import Iterator

import pytest

from tests.core.s3 import s3_server


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """Address of a store on a real S3 server."""
    with s3_server() as address:
        yield address
