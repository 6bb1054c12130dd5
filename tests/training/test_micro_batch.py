"""Accumulation gives the large batch's gradient, also where its samples are coupled."""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rrl_dist.core.batch import Batch
from rrl_dist.core.errors import UserError
from rrl_dist.models.encoder import Encoder
from rrl_dist.training.micro_batch import hold_in_parts
from tests.gloo import run_workers
from tests.longer import covering
from tests.objectives.harness import OBJECTIVES, own_batch, small_objective
from tests.training.strategies import EVERY, OFFLOADED, ZERO, Run

PART = 5  # of 24 images, or 12, or 48 for two views: the last part is smaller


class GroupNormCNN(nn.Module):
    """A backbone that treats each image alone; notes how many it is given."""

    num_features = 8

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 8, 3)
        )
        self.seen: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(len(x))
        return self.layers(x).mean((2, 3))


def encoder(seed: int) -> Encoder:
    torch.manual_seed(seed)
    statistics: dict[str, Any] = {"mean": [0.5] * 3, "std": [0.2] * 3}
    return Encoder(backbone=GroupNormCNN(), sync_bn=True, **statistics)


def two_steps(name: str, kind: str, part: int | None) -> tuple[Any, ...]:
    """Losses, the gradient of the first step, and the largest pass."""
    run = Run(name, kind, optimizer="plain", lr=0.1, encoder=encoder)
    hold_in_parts(run.objective, part)
    run.objective.encoder.backbone.seen.clear()
    before = run.weights()
    first = run.step()
    after = run.weights()
    gradient = {k: (before[k] - after[k]) / 0.1 for k in before}
    largest = max(run.objective.encoder.backbone.seen)
    return [first, run.step()], gradient, largest


def compare(parts: tuple[Any, ...], whole: tuple[Any, ...]) -> None:
    assert parts[0] == pytest.approx(whole[0], rel=1e-5)
    assert parts[2] == PART < whole[2]
    for name, value in whole[1].items():
        torch.testing.assert_close(parts[1][name], value, rtol=1e-4, atol=1e-5)
    assert max(float(value.abs().max()) for value in whole[1].values()) > 1e-3


@pytest.mark.parametrize("name", OBJECTIVES)
def test_parts_have_the_gradient_of_the_whole(name: str) -> None:
    compare(two_steps(name, "single", PART), two_steps(name, "single", None))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"), covering(OBJECTIVES, [kind for kind in EVERY if kind != "single"])
)
def test_parts_have_it_under_every_strategy(name: str, kind: str) -> None:
    whole = two_steps(name, "single", None)
    for parts in run_workers(2, two_steps, name, kind, PART):
        compare(parts, whole)


LIMIT = 1.0


def four_steps(kind: str, clip_grad: float | None) -> tuple[Any, ...]:
    """Losses, norms of what moved the weights over the rate, and weights, in parts."""
    options: dict[str, Any] = {"encoder": encoder, "clip_grad": clip_grad}
    run = Run("simclr", kind, optimizer="plain", lr=0.1, **options)
    hold_in_parts(run.objective, PART)
    trained = [n for n, p in run.objective.named_parameters() if p.requires_grad]
    losses, norms = [], []
    for _ in range(4):
        before = run.weights()
        losses.append(run.step())
        after = run.weights()
        moved = [(before[n] - after[n]).flatten() / 0.1 for n in trained]
        norms.append(float(torch.cat(moved).norm()))
    return losses, norms, run.weights()


def free_and_clipped(kind: str) -> list[tuple[Any, ...]]:
    return [four_steps(kind, clip_grad) for clip_grad in (None, LIMIT)]


@cache
def as_ddp_does() -> list[list[tuple[Any, ...]]]:
    return run_workers(2, free_and_clipped, "ddp")


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*ZERO, *OFFLOADED])
def test_accumulated_gradients_are_clipped_as_ddp_does(kind: str) -> None:
    (free, clipped), _ = as_ddp_does()
    assert min(free[1]) > 2 * LIMIT
    # Weight decay is added after clipping.
    assert clipped[1] == pytest.approx([LIMIT] * 4, rel=0.02)
    for found in run_workers(2, free_and_clipped, kind):
        for (losses, norms, weights), expected in zip(
            found, (free, clipped), strict=True
        ):
            assert losses == pytest.approx(expected[0], rel=1e-5)
            assert norms == pytest.approx(expected[1], rel=1e-5)
            for name, value in expected[2].items():
                torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-5)


def test_the_losses_of_parts_would_not_do() -> None:
    """What accumulating them gives is another gradient: the guard of these tests."""
    objective = small_objective("simclr", encoder=encoder)
    batch = own_batch("simclr")

    def loss(rows: slice) -> float:
        views = tuple(view[rows] for view in batch.views)
        part = Batch(views[0], views, batch.labels[rows], batch.index[rows])
        return float(objective(part)["loss"].detach())

    parts = (loss(slice(12)) + loss(slice(12, 24))) / 2
    assert abs(parts - loss(slice(24))) > 0.1


def test_activations_are_held_for_a_part_only() -> None:
    def saved(part: int | None) -> int:
        objective = small_objective("supervised", encoder=encoder)
        hold_in_parts(objective, part)
        held: dict[int, int] = {}

        def note(x: Tensor) -> Tensor:
            held[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            objective(own_batch("supervised"))
        return sum(held.values())

    # What is left is the input itself, the features and the head's.
    assert saved(2) < saved(None) / 2


def test_batch_norm_in_train_mode_forbids_it() -> None:
    objective = small_objective("simclr").train()
    with pytest.raises(UserError, match=r"train\.micro_batch=4: the encoder's batch"):
        hold_in_parts(objective, 4)
    hold_in_parts(objective, None)
    objective.encoder.eval()
    hold_in_parts(objective, 4)
    with pytest.raises(UserError, match=r"train\.micro_batch=0; set at least 1"):
        hold_in_parts(objective, 0)
