"""Bounds what all tests share: threads, and what is skipped where."""

import os
import signal

import pytest
import torch
from hypothesis import settings

# The same draws each time: a test that fails once in a hundred runs tells nobody what
# changed. No deadline, since other processes share the cores.
settings.register_profile("repeatable", derandomize=True, deadline=None)


# Ray's workers would give way to whatever else runs, such as the other tests' process,
# and what waits for them would take minutes.
os.environ.setdefault("RAY_worker_niceness", "0")


def pytest_configure() -> None:
    # A shell's jobs in the background begin with Ctrl-C ignored, and so would all that
    # tests start.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    no_gpu = pytest.mark.skip(reason="no CUDA device")
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(no_gpu)
