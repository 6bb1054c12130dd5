import json
from pathlib import Path

import pytest
import torch

from rrl_dist.training.journal import Journal, TrainingDivergedError, read_metrics


def terms(loss: float, other: float = 0.0) -> dict[str, torch.Tensor]:
    return {"loss": torch.tensor(loss), "other": torch.tensor(other)}


@pytest.fixture
def journal(tmp_path: Path):
    made = Journal(tmp_path, writes=True, start=0)
    yield made
    made.close()


def test_a_line_holds_the_means_since_the_line_before(journal, tmp_path: Path) -> None:
    for step, loss in enumerate([1.0, 2.0, 6.0], start=1):
        journal.add(step, terms(loss, -loss))
    journal.flush(epoch=0.5, lr=0.1)
    journal.add(4, terms(10.0))
    journal.flush()
    journal.flush()
    first, second = read_metrics(tmp_path / "metrics.jsonl")
    assert (first["step"], first["epoch"], first["lr"]) == (3, 0.5, 0.1)
    assert first["loss"] == pytest.approx(3.0)
    assert first["other"] == pytest.approx(-3.0)
    assert first["steps_per_second"] > 0
    assert (second["step"], second["loss"]) == (4, 10.0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_named_with_its_step(
    journal, tmp_path: Path, bad: float
) -> None:
    journal.add(7, terms(1.0))
    journal.add(8, terms(1.0, bad))
    journal.add(9, terms(float("nan")))
    with pytest.raises(TrainingDivergedError, match=f"step 8: other is {bad}") as error:
        journal.flush()
    assert "\n" not in str(error.value)
    assert read_metrics(tmp_path / "metrics.jsonl") == []


def test_workers_that_do_not_write_find_it_too_and_leave_no_file(
    tmp_path: Path,
) -> None:
    journal = Journal(tmp_path / "none", writes=False, start=0)
    journal.add(1, terms(1.0))
    journal.flush()
    journal.add(2, terms(float("nan")))
    with pytest.raises(TrainingDivergedError, match="step 2: loss is nan"):
        journal.flush()
    journal.close()
    assert not (tmp_path / "none").exists()


def test_terms_are_noted_without_their_graph(journal) -> None:
    weight = torch.ones(2, requires_grad=True)
    journal.add(1, {"loss": weight.sum()})
    journal.flush()  # a scalar with graph would warn, and warnings are errors here


def lines(*steps: int) -> str:
    return "".join(json.dumps({"step": step, "loss": 1.0}) + "\n" for step in steps)


def test_a_resumed_run_drops_what_was_written_beyond(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(lines(2, 4, 6, 8))
    journal = Journal(tmp_path, writes=True, start=4)
    journal.write(6, {"loss": 2.0})
    journal.close()
    found = read_metrics(tmp_path / "metrics.jsonl")
    assert [(line["step"], line["loss"]) for line in found] == [
        (2, 1.0),
        (4, 1.0),
        (6, 2.0),
    ]


def test_a_last_line_cut_short_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    whole = lines(2, 4)
    for length in range(len(lines(2)), len(whole)):
        path.write_text(whole[:length])
        assert [line["step"] for line in read_metrics(path)] == [2]
    journal = Journal(tmp_path, writes=True, start=3)
    journal.write(3, {"loss": 1.0})
    journal.close()
    assert [line["step"] for line in read_metrics(path)] == [2, 3]


def test_numbers_go_to_tensorboard_too(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import (
        EventAccumulator,
    )

    journal = Journal(tmp_path, writes=True, start=0)
    journal.add(5, terms(3.0))
    journal.flush()
    journal.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (event,) = events.Scalars("loss")
    assert (event.step, event.value) == (5, 3.0)
