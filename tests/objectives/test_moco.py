import math

import pytest
import torch
import torch.nn.functional as F
from lightly.loss import NTXentLoss
from torch import Tensor

from rrl_dist.core.errors import UserError
from rrl_dist.objectives.moco import MoCo, info_nce
from rrl_dist.training.rehearsal import rehearse
from tests.composing import TINY, compose
from tests.gloo import run_workers
from tests.objectives.harness import (
    QUEUE,
    SAMPLES,
    own_batch,
    small_encoder,
    small_objective,
)
from tests.objectives.moving import queues
from tests.objectives.views import losses_on_one_batch, rows, two_views


def literal_info_nce(q: Tensor, k: Tensor, queue: Tensor, temperature: float) -> float:
    """Eq. 1 of the paper, one query and one key at a time."""

    def similar(a: list[float], b: list[float]) -> float:
        return math.exp(sum(x * y for x, y in zip(a, b, strict=True)) / temperature)

    total = 0.0
    for query, key in zip(rows(q), rows(k), strict=True):
        own = similar(query, key)
        total -= math.log(own / (own + sum(similar(query, n) for n in rows(queue))))
    return total / len(q)


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_papers_formula_and_lightlys(seed: int) -> None:
    q, k = (F.normalize(z, dim=1) for z in two_views(6, 5, seed=seed))
    queue = F.normalize(two_views(11, 5, seed=seed + 100)[0], dim=1)
    loss = float(info_nce(q, k, queue, temperature=0.3))
    assert loss == pytest.approx(literal_info_nce(q, k, queue, 0.3), rel=1e-5)
    theirs = NTXentLoss(temperature=0.3, memory_bank_size=(11, 5))
    theirs.memory_bank.bank.copy_(queue)
    assert loss == pytest.approx(float(theirs(q, k)), rel=1e-5)


@pytest.fixture
def objective() -> MoCo:
    """With a slow copy that is no longer a copy."""
    made = small_objective("moco").train()
    assert isinstance(made, MoCo)
    losses_on_one_batch(made, own_batch("moco"), steps=3, lr=0.1)
    made.after_step(0.3)
    return made


def keys_of(objective: MoCo) -> tuple[Tensor, Tensor]:
    a, b = own_batch("moco").views
    encoder, projector = objective.slow.module  # type: ignore[misc]
    ka, kb = (F.normalize(projector(encoder(x)), dim=1) for x in (a, b))
    return ka, kb


def test_each_view_is_compared_with_the_keys_of_the_other(objective: MoCo) -> None:
    a, b = own_batch("moco").views
    qa, qb = (
        F.normalize(objective.projector(objective.encoder(x)), dim=1).detach()
        for x in (a, b)
    )
    ka, kb = keys_of(objective)
    of_a, of_b = objective.queues
    forth = literal_info_nce(qa, kb, of_b, 0.2)
    back = literal_info_nce(qb, ka, of_a, 0.2)
    terms = objective(own_batch("moco"))
    assert float(terms["loss"].detach()) == pytest.approx((forth + back) / 2, rel=1e-5)
    similarity = F.cosine_similarity(qa, kb, dim=1).mean()
    torch.testing.assert_close(terms["key_similarity"], similarity)


def test_a_forward_leaves_the_queues_and_a_step_moves_them(objective: MoCo) -> None:
    size = objective.queues.shape[1]
    before, place = objective.queues.clone(), int(objective.oldest)
    assert (size, place) == (QUEUE, SAMPLES)
    objective(own_batch("moco"))
    assert torch.equal(objective.queues, before)
    expected = before.clone()
    for view, keys in enumerate(keys_of(objective)):
        for i, key in enumerate(keys):
            expected[view, (place + i) % size] = key
    objective.after_step(0.5)
    torch.testing.assert_close(objective.queues, expected)
    assert int(objective.oldest) == (place + SAMPLES) % size
    untouched = (place + SAMPLES) % size  # the oldest of those that are left
    assert torch.equal(objective.queues[:, untouched], before[:, untouched])


def test_a_queue_shorter_than_a_batch_keeps_the_last_keys(objective: MoCo) -> None:
    objective.queues = objective.queues[:, :5].clone()
    objective.oldest.zero_()
    objective(own_batch("moco"))
    last = [keys[-5:] for keys in keys_of(objective)]
    objective.after_step(0.5)
    torch.testing.assert_close(objective.queues, torch.stack(last))


def test_the_queues_begin_as_unit_directions_and_are_in_the_state() -> None:
    made = small_objective("moco")
    state = made.state_dict()
    assert state["queues"].shape == (2, QUEUE, 8)
    lengths = state["queues"].norm(dim=2)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))
    assert not torch.equal(state["queues"][0], state["queues"][1])
    assert state["oldest"] == 0


def test_training_on_one_batch_lowers_the_loss() -> None:
    made = small_objective("moco").train()
    losses = losses_on_one_batch(made, own_batch("moco"), steps=30, lr=0.3)
    assert losses[-1] < losses[0] - 0.1


def test_an_empty_queue_is_refused() -> None:
    with pytest.raises(UserError, match="queue_size=0; set at least 1"):
        MoCo(
            encoder=small_encoder(1),
            projector=torch.nn.Identity,
            temperature=0.2,
            queue_size=0,
            momentum_start=0.9,
            momentum_end=1.0,
        )


def test_local_batch_norm_on_several_workers_is_refused_before_they_start() -> None:
    inside = ("objective=tarrl", "objective/base=moco", "objective.base.queue_size=9")

    def rehearsed(sync_bn: bool, workers: int) -> None:
        config = compose("pretrain", *TINY, *inside, f"model.sync_bn={sync_bn}")
        stage = {**config, "teacher": None}
        rehearse("pretrain", stage, size=16, num_classes=3, workers=workers)

    rehearsed(False, 1)
    rehearsed(True, 2)
    with pytest.raises(UserError) as told:
        rehearsed(False, 2)
    assert str(told.value) == (
        "pretrain: MoCo would tell keys by the batch norm of one of 2 workers; "
        "set model.sync_bn=true"
    )


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 4])
def test_the_queues_are_the_same_on_any_number_of_workers(workers: int) -> None:
    ((alone, place),) = run_workers(1, queues, "moco", 3)
    found = run_workers(workers, queues, "moco", 3)
    assert place == 3 * SAMPLES % QUEUE
    for keys, oldest in found:
        assert torch.equal(keys, found[0][0])
        assert oldest == place
        torch.testing.assert_close(keys, alone, rtol=1e-4, atol=1e-5)
