"""The whole job with weights cut over two workers."""

import json
from pathlib import Path

import pytest

from rrl_dist.training.journal import read_metrics
from tests.cli.harness import TINY, rrl

ZERO = (
    "strategy=deepspeed_zero3",
    "strategy.options.stage3_param_persistence_threshold=0",
    "strategy.options.reduce_bucket_size=100000",
    "strategy.precision=bf16",
)


@pytest.mark.slow
def test_every_stage_runs_under_zero_3_on_two_workers(tmp_path: Path) -> None:
    two = ("cluster=local", "cluster.workers=2", "cluster.threads=1")
    rrl(tmp_path, "run", *TINY, *ZERO, *two)
    run = tmp_path / "runs" / "demo"
    arms = json.loads((run / "results.json").read_text())["arms"]
    assert arms.keys() == {"simclr", "deacl"}
    for metrics in run.glob("stages/pretrain-*/metrics.jsonl"):
        probed = [line for line in read_metrics(metrics) if "linear_acc" in line]
        # A head on weights that were still cut up would guess.
        assert probed[-1]["linear_acc"] > 0.3
