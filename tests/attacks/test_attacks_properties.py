"""What must hold for any network, image and radius; whole calls of AutoAttack too."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pyautoattack.autopgd_base import APGDAttack_targeted
from torch import Tensor, nn

from rrl_dist.attacks import L1, L2, Attack, Ball, Details, Linf, autoattack, pgd
from rrl_dist.attacks.versions import VERSIONS, Components
from tests.attacks import kinds
from tests.attacks.conftest import Network
from tests.attacks.kinds import Data, Kind, every_ball, every_kind, fooling

THREE = [Linf(0.1), L2(0.5), L1(1.0)]
three_balls = pytest.mark.parametrize("ball", THREE, ids=Ball.label)
few = partial(settings, deadline=None, derandomize=True)


class Problem(NamedTuple):
    """A random network, and images of it with labels.

    Attributes:
        model: [N, C, H, W] -> [N, K], K of 1 to 5.
        ball: of any norm; its radius from 0 to more than an edge of the cube.
        x: [N, C, H, W], N of 0 to 6, some at the ends of [0, 1].
        y: [N] labels, most of them the network's answers.
    """

    model: nn.Module
    ball: Ball
    x: Tensor
    y: Tensor


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    count, classes = draw(st.integers(0, 6)), draw(st.integers(1, 5))
    shape = tuple(draw(st.tuples(*[st.integers(1, k) for k in (3, 5, 5)])))
    conv, head = nn.Conv2d(shape[0], 4, 3, padding=1), nn.LazyLinear(classes)
    model = Network(conv, nn.Tanh(), nn.Flatten(), head).eval()
    x = torch.rand(count, *shape, generator=generator)
    if draw(st.booleans()):
        x = x.round()
    model(torch.zeros(1, *shape))
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=generator)
    y = model(x).argmax(1)
    y[:1] = draw(st.integers(0, classes - 1))
    radius = draw(st.sampled_from([0.0, 1e-6, 0.01, 0.1, 0.5, 3.0]))
    return Problem(model, draw(st.sampled_from(THREE)).with_eps(radius), x, y)


def in_the_ball(ball: Ball, x_adv: Tensor, x: Tensor) -> bool:
    distance = ball.distance(x_adv.double(), x.double())
    inside = bool((distance <= ball.eps * (1 + 1e-6)).all())
    return inside and bool(((x_adv >= 0) & (x_adv <= 1)).all())


@every_kind
@few(max_examples=15)
@given(problem=problems())
def test_images_are_in_the_ball_whatever_the_network(
    kind: Kind, problem: Problem
) -> None:
    model, ball, x, y = problem
    before = x.clone()
    found = kind(ball, micro_batch=16).run(model, x, y)
    assert torch.equal(x, before)
    assert found.x_adv.shape == x.shape
    assert in_the_ball(ball, found.x_adv, x)
    assert ball.eps > 0 or torch.equal(found.x_adv, x)
    for one in torch.arange(len(x)).split(1):
        # Below 16 rows a linear layer may round by the place in the batch.
        alone = kind(ball, micro_batch=16).run(model, x[one], y[one], one)
        assert torch.equal(alone.x_adv, found.x_adv[one])
        assert torch.equal(alone.queries, found.queries[one])


@fooling
@few(max_examples=15)
@given(problem=problems())
def test_what_is_wrong_stays_wrong(kind: Kind, problem: Problem) -> None:
    model, ball, x, y = problem
    wrong = [model(images).argmax(1) != y for images in (x, kind(ball)(model, x, y))]
    assert not (wrong[0] & ~wrong[1]).any()


@fooling
@every_ball
@few(max_examples=5)
@given(share=st.floats(0.05, 1.5), more=st.floats(1.0, 3.0))
def test_a_larger_ball_never_leaves_many_more(
    kind: Kind, ball: Ball, share: float, more: float, trained: nn.Module, digits: Data
) -> None:
    """Of 128 images at most one: draws are other points in other balls."""
    x, y = (column[1500:1628] for column in digits)
    left = []
    for radius in (share * ball.eps, more * share * ball.eps):
        x_adv = kind(ball.with_eps(radius))(trained, x, y)
        left.append(int((trained(x_adv).argmax(1) == y).sum()))
    assert left[1] <= left[0] + 1


def changed(attack: Any, **settings: Any) -> Any:
    return replace(attack, **settings)


IN_TURN: dict[str, Callable[[Ball], Attack]] = {
    "apgd-ce": kinds.apgd,
    "apgd-dlr": lambda ball: changed(kinds.apgd(ball), loss="dlr"),
    "apgd-t": lambda ball: changed(kinds.apgd(ball), loss="targeted-dlr", targets=4),
    "fab": kinds.fab,
    "fab-t": kinds.fab_t,
    "square": kinds.square,
}


@pytest.mark.parametrize("name", IN_TURN)
@three_balls
@few(max_examples=4)
@given(share=st.floats(0.3, 1.5), seed=st.integers(0, 9))
def test_stopping_early_changes_no_flag(
    name: str, ball: Ball, share: float, seed: int, trained: nn.Module, digits: Data
) -> None:
    x, y = (column[1500:1564] for column in digits)
    attack = IN_TURN[name](ball.with_eps(share * ball.eps))
    early, late = (
        changed(attack, seed=seed, in_turn=turn).run(trained, x, y)
        for turn in (False, True)
    )
    wrong = [trained(found.x_adv).argmax(1) != y for found in (early, late)]
    assert torch.equal(*wrong)
    assert (early.queries <= late.queries).all()


FEW = {"square": {"queries": 40}}


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The standard version with few steps: its four components, and their settings."""
    whole = VERSIONS["standard"]

    def cut(ball: Ball) -> Components:
        made = whole(ball).items()
        return {k: partial(v, **FEW.get(k, {"steps": 6})) for k, v in made}

    monkeypatch.setitem(VERSIONS, "standard", cut)


def same(one: Details, other: Details) -> bool:
    """To the bit: images, flags, and what each component broke and asked."""
    pairs = [(one.x_adv, other.x_adv), (one.robust, other.robust)]
    for ours, theirs in zip(one.stages, other.stages, strict=True):
        pairs += [(ours.wrong, theirs.wrong), (ours.queries, theirs.queries)]
    return all(torch.equal(*pair) for pair in pairs)


@pytest.mark.usefixtures("short")
@three_balls
def test_autoattack_gives_the_same_bits_at_any_batch_size(
    ball: Ball, trained: nn.Module, unseen: Data
) -> None:
    x, y = (column[:70] for column in unseen)
    details = [
        autoattack(trained, x, y, ball=ball, batch_size=size, details=True)
        for size in (64, 1, 7, 512)
    ]
    assert all(same(each, details[0]) for each in details)
    assert 5 < int(details[0].robust.sum()) < 65
    parts = [
        autoattack(trained, x[i], y[i], ball=ball, batch_size=len(i), index=i)
        for i in torch.arange(70).split(7)
    ]
    assert torch.equal(torch.cat(parts), details[0].x_adv)


@pytest.mark.slow
def test_whole_autoattack_gives_the_same_bits_in_any_parts_and_order(
    trained: nn.Module, unseen: Data
) -> None:
    x, y = (column[:24] for column in unseen)
    settings: Any = {"ball": Linf(0.1), "details": True}
    whole = autoattack(trained, x, y, **settings)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    for i in order.split(7):
        part = autoattack(trained, x[i], y[i], index=i, batch_size=7, **settings)
        assert torch.equal(part.x_adv, whole.x_adv[i])
        pairs = zip(part.stages, whole.stages, strict=True)
        assert all(torch.equal(mine.wrong, other.wrong[i]) for mine, other in pairs)
    in_turn = autoattack(trained, x, y, in_turn=True, **settings)
    pairs = zip(in_turn.stages, whole.stages, strict=True)
    assert all(torch.equal(late.wrong, early.wrong) for late, early in pairs)


@three_balls
def test_pgd_in_one_call_gives_the_same_bits_at_any_batch_size(
    ball: Ball, trained: nn.Module, unseen: Data
) -> None:
    attack = partial(pgd, trained, *unseen, ball=ball, steps=5)
    assert all(torch.equal(attack(batch_size=n), attack()) for n in (1, 7, 64, 512))


@pytest.mark.usefixtures("short")
def test_images_of_one_class_alone_are_attacked_as_among_others(
    trained: nn.Module, unseen: Data
) -> None:
    x, y = (column[:100] for column in unseen)
    whole = autoattack(trained, x, y, ball=Linf(0.1))
    rows = (y == 3).nonzero()[:, 0]
    alone = autoattack(trained, x[rows], y[rows], ball=Linf(0.1), index=rows)
    assert len(rows) > 5
    assert torch.equal(alone, whole[rows])


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("classes", [1, 2, 3])
@every_ball
def test_autoattack_knows_what_can_be_broken_with_few_classes(
    classes: int, ball: Ball
) -> None:
    """A linear network, for which the worst image in the ball has a formula."""
    generator = torch.Generator().manual_seed(classes)
    linear = nn.Linear(16, classes)
    nn.init.normal_(linear.weight, generator=generator)
    with torch.no_grad():  # classes are equal in the middle of the box
        linear.bias.copy_(-0.5 * linear.weight.sum(1))
    small = ball.with_eps(0.2 * ball.eps)
    # Far enough from black and white for the whole ball.
    x = 0.3 + 0.4 * torch.rand(60, 1, 4, 4, generator=generator)
    model = nn.Sequential(nn.Flatten(), linear).eval()
    logits = model(x).detach()
    y = logits.argmax(1)
    gaps = linear.weight.detach()[None] - linear.weight.detach()[y][:, None]
    dual = gaps.abs().sum(2) if ball.norm == "linf" else gaps.norm(dim=2)
    reach = logits - logits.gather(1, y[:, None]) + small.eps * dual
    reach = reach.scatter(1, y[:, None], -torch.inf).amax(1)
    clear = reach.abs() > 1e-3
    robust = autoattack(model, x, y, ball=small, details=True).robust
    assert torch.equal(robust[clear], reach[clear] < 0)
    assert bool(robust.all()) == (classes == 1)
    assert robust.sum() > 10


class Lower(nn.Module):
    """A network of fewer bits that is asked and that answers in float32."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model.to(dtype), dtype

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x.to(self.dtype))
        return logits


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_network_of_half_precision_is_broken_as_well(
    dtype: torch.dtype, trained: nn.Module, model: nn.Module, unseen: Data
) -> None:
    x, y = (column[:64] for column in unseen)
    ball, lower = Linf(0.1), Lower(model, dtype).eval()
    found = autoattack(lower, x, y, ball=ball, details=True)
    assert found.x_adv.dtype == torch.float32
    assert in_the_ball(ball, found.x_adv, x)
    assert same(found, autoattack(lower, x, y, ball=ball, details=True, batch_size=7))
    # Calls of another shape may round otherwise, and here that may turn an answer.
    answers = torch.cat([lower(part).argmax(1) for part in found.x_adv.split(32)])
    assert torch.equal(answers == y, found.robust)
    bare = autoattack(model.to(dtype), x, y, ball=ball, details=True)
    assert same(found, bare), "one that takes nothing but its own type"
    full = autoattack(trained, x, y, ball=ball, details=True).robust
    assert abs(full.sum() - found.robust.sum()) <= 2


@pytest.mark.usefixtures("short")
def test_layouts_that_stop_the_authors_code_change_nothing(
    model: nn.Sequential, digits: Data
) -> None:
    colours = nn.Sequential(nn.Conv2d(3, 1, 1), *model).eval()
    x = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    y = colours(x).argmax(1)
    other = x.to(memory_format=torch.channels_last)
    reference = APGDAttack_targeted(colours, n_iter=3, eps=0.1, seed=0)
    with torch.random.fork_rng():
        reference.perturb(x, y)
        with pytest.raises(RuntimeError, match="view size is not compatible"):
            reference.perturb(other, y)
    again = autoattack(colours, other, y, ball=Linf(0.1))
    assert torch.equal(again, autoattack(colours, x, y, ball=Linf(0.1)))
    assert again.is_contiguous()
