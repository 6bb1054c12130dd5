"""All that is trained, with weights cut over two workers."""

from pathlib import Path

import pytest

from rrl_dist.training.journal import read_metrics
from tests.gloo import run_workers
from tests.training.stages import pretraining, probing, train_workers

ZERO = (
    "strategy=deepspeed_zero3",
    "strategy.options.stage3_param_persistence_threshold=0",
    "strategy.options.reduce_bucket_size=100000",
    "strategy.precision=bf16",
)


@pytest.mark.slow
def test_every_stage_runs_under_zero_3_on_two_workers(tmp_path: Path) -> None:
    teacher, student, head = (tmp_path / n for n in ("simclr", "deacl", "head"))
    first = pretraining("simclr", *ZERO, probed=True)
    run_workers(2, train_workers, first, teacher, False)
    second = pretraining("deacl", *ZERO, teacher=teacher, probed=True)
    run_workers(2, train_workers, second, student, False)
    run_workers(2, train_workers, probing(student, *ZERO), head, False)
    for folder in (teacher, student):
        lines = read_metrics(folder / "metrics.jsonl")
        probed = [line for line in lines if "linear_acc" in line]
        # A head on weights that were still cut up would guess.
        assert probed[-1]["linear_acc"] > 0.3
    assert (head / "model.safetensors").is_file()
