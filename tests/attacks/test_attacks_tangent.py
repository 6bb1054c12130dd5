"""TangentAttack: the nearest wrong image by answers alone."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from rrl_dist.attacks import L2, Linf, TangentAttack
from rrl_dist.attacks import tangent as call
from rrl_dist.attacks.passes import counted
from rrl_dist.attacks.starts import start_images
from rrl_dist.core.errors import UserError
from tests.attacks.decisions import distances, tangent
from tests.attacks.test_attacks_search import linear

Data = tuple[Tensor, Tensor]
few = partial(tangent, 80, directions=10)


def right(model: nn.Module, data: Data, count: int) -> Data:
    """Images that the model is right about."""
    x, y = data
    with torch.no_grad():
        places = (model(x).argmax(1) == y).nonzero()[:count, 0]
    return x[places], y[places]


def test_near_the_distance_of_a_linear_model() -> None:
    model = linear(2, 16)
    generator = torch.Generator().manual_seed(0)
    # Far from black and white, which would keep an image from the nearest wrong one.
    x = 0.5 + 0.05 * torch.randn(16, 1, 4, 4, generator=generator)
    logits = model(x).detach()
    y = logits.argmax(1)
    weight = model[1].weight.detach()
    exact = (logits[:, 0] - logits[:, 1]).abs() / (weight[0] - weight[1]).norm()
    found = distances(tangent(400, directions=20), model, x, y)
    assert (found >= exact * (1 - 1e-4)).all()
    assert (found / exact).median() <= 1.1


def test_more_queries_lead_nearer(model: nn.Module, unseen: Data) -> None:
    x, y = right(model, unseen, 16)
    medians = [
        float(distances(tangent(n, directions=10), model, x, y).median())
        for n in (20, 60, 200)
    ]
    assert medians[0] > medians[1] > medians[2]


def test_every_query_is_counted_and_all_are_made(
    model: nn.Module, unseen: Data
) -> None:
    x, y = right(model, unseen, 16)
    with counted(model) as passes:
        found = few().run(model, x, y)
    assert (found.queries == 80).all()
    # One micro-batch of 16, and each answer of it is of one sample.
    assert passes.forward == 80 * 16


def test_what_is_wrong_from_the_start_is_not_touched(
    model: nn.Module, unseen: Data
) -> None:
    x, y = (column[:20].clone() for column in unseen)
    with torch.no_grad():
        y[::2] = (model(x[::2]).argmax(1) + 1) % 10
        wrong = model(x).argmax(1) != y
    found = few().run(model, x, y)
    assert torch.equal(found.x_adv[wrong], x[wrong])
    assert (found.queries[wrong] == 1).all()
    assert (found.queries[~wrong] == 80).all()


def test_what_is_beyond_the_ball_comes_back_as_it_was(
    model: nn.Module, unseen: Data
) -> None:
    x, y = right(model, unseen, 16)
    far = L2(1.0).distance(few().run(model, x, y).x_adv, x)
    ball = L2(float(far.median()))
    found = few(ball=ball).run(model, x, y).x_adv
    inside = far <= ball.eps
    assert 0 < int(inside.sum()) < 16
    assert torch.equal(found[~inside], x[~inside])
    with torch.no_grad():
        assert torch.equal(model(found).argmax(1) != y, inside)
    assert (ball.distance(found, x) <= ball.eps).all()


@pytest.mark.parametrize("batch", [1, 7, 64])
def test_batch_size_and_order_change_no_bit(
    batch: int, model: nn.Module, unseen: Data
) -> None:
    attack = tangent(24, directions=5)
    count = 4 if batch == 1 else 70
    x, y = (column[:count] for column in unseen)
    whole = attack.run(model, x, y)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(batch))
    for rows in order.split(batch):
        part = attack.run(model, x[rows], y[rows], rows)
        assert torch.equal(part.x_adv, whole.x_adv[rows])
        assert torch.equal(part.queries, whole.queries[rows])


def test_draws_depend_on_seed_and_index(model: nn.Module, unseen: Data) -> None:
    x, y = right(model, unseen, 16)
    first = few()(model, x, y)
    others = few(seed=1)(model, x, y), few()(model, x, y, torch.arange(16) + 1000)
    for other in others:
        assert (other != first).flatten(1).any(1).all()


class Loud(nn.Module):
    """Calls pixel noise and every grey what it calls the images themselves: "other" is
    what has a colour."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(2).mean(2)
        spread = mean.amax(1) - mean.amin(1)
        return torch.stack([0.2 - spread, torch.zeros_like(spread)], 1)


def test_a_start_is_found_where_pixel_noise_has_the_images_own_name() -> None:
    x = torch.full((4, 3, 16, 16), 0.5)
    y = torch.zeros(4, dtype=torch.int64)
    noise = torch.rand(200, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert (Loud()(noise).argmax(1) == 0).all()
    assert (distances(few(), Loud(), x, y) > 0).all()


def test_starts_are_tiles_of_growing_size() -> None:
    x = torch.zeros(12, 3, 6, 8)
    drawn = start_images(
        x, torch.arange(12), seed=0, index=torch.zeros(12, dtype=torch.int64)
    )
    assert 0 <= drawn.min() <= drawn.max() <= 1
    colours = [len(image.flatten(1).unique(dim=1)[0]) for image in drawn]
    assert colours[:4] == [48, 12, 4, 1]
    assert ((drawn[4:8] == 0) | (drawn[4:8] == 1)).all()


def test_a_model_that_is_never_wrong_gives_the_images_back() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.copy_(torch.tensor([2.0, 0.0]))
    x, y = torch.rand(3, 1, 4, 4), torch.zeros(3, dtype=torch.int64)
    found = few().run(model, x, y)
    assert torch.equal(found.x_adv, x)
    assert (found.queries == 80).all()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"queries": 1}, "queries=1"),
        ({"directions": 0}, "directions=0"),
        ({"tolerance": 0.0}, "tolerance=0.0"),
        ({"micro_batch": 0}, "micro_batch=0"),
        ({"ball": Linf(0.1)}, "linf@0.1"),
    ],
)
def test_impossible_settings_are_refused(change: dict[str, object], told: str) -> None:
    with pytest.raises(UserError, match=told):
        replace(few(), **change)


def test_name_tells_the_queries() -> None:
    assert isinstance(few(), TangentAttack)
    assert few().name == "tangent80"


def test_the_call_tells_what_is_wrong_already_from_what_is_never_wrong() -> None:
    """The first image is wrong from the start, the second cannot be broken."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 2))
    with torch.no_grad():
        model[1].weight.zero_()
        model[1].bias.copy_(torch.tensor([2.0, 0.0]))
    x = torch.rand(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    found = call(model.eval(), x, torch.tensor([1, 0]), queries=20)
    assert found.distance.tolist() == [0.0, torch.inf]
    assert found.queries.tolist() == [1, 20]
    assert torch.equal(found.x_adv, x)


def test_the_call_is_the_attack(model: nn.Module, unseen: Data) -> None:
    x, y = right(model, unseen, 6)
    found = call(model, x, y, queries=30, directions=8, batch_size=5)
    attack = tangent(30, directions=8, micro_batch=32)
    assert torch.equal(found.x_adv, attack(model, x, y))
    assert torch.equal(found.distance, L2(1.0).distance(found.x_adv, x))
