"""Settings of `cluster=debug`, and of strategies, where they are not to be had."""

from pathlib import Path

import pytest

from tests.mistakes.commands import refused
from tests.mistakes.listing import told

DEMO = ("run", "experiment=demo")
CHECK = (*DEMO, "cluster=debug", "loader=memory")

# What is wrong, what was typed.
TOLD = [
    ("anomaly mode in a cluster", (*DEMO, "cluster=local", "cluster.anomaly=true")),
    (
        "anomaly mode in a cluster that was debug",
        (*DEMO, "cluster=debug", "cluster.kind=local", "cluster.anomaly=true"),
    ),
    ("no batches to learn by heart", (*DEMO, "cluster=debug", "cluster.overfit=0")),
    ("a word for batches to learn", (*DEMO, "cluster=debug", "cluster.overfit=yes")),
    ("more batches to learn than there are", (*CHECK, "cluster.overfit=11")),
    (
        "batches to learn that come once",
        (*CHECK, "cluster.overfit=2", "arms.deacl.train.max_steps=2"),
    ),
    (
        "a search of what is learned by heart",
        ("tune", "sweep=tarrl", "name=x", "cluster=debug", "cluster.overfit=2"),
    ),
    (
        "offloading where nothing is cut up",
        (*CHECK, "strategy=deepspeed_zero0", "strategy.offload=optimizer"),
    ),
    (
        "offloading of weights that are whole",
        (*CHECK, "strategy=deepspeed_zero2", "strategy.offload=all"),
    ),
    ("offloading without DeepSpeed", (*DEMO, "strategy.offload=optimizer")),
]


@pytest.mark.parametrize(("case", "typed"), TOLD, ids=[case for case, _ in TOLD])
def test_it_is_told_in_one_line(
    case: str,
    typed: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = refused([*typed, f"storage={tmp_path}"], monkeypatch, capsys)
    told(case, f"rrl {' '.join(typed)}", line)
