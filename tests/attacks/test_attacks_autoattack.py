"""Attacks in turn, and AutoAttack as one call."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from pyautoattack import AutoAttack as Official
from torch import Tensor, nn

from rrl_dist.attacks import (
    APGD,
    FAB,
    L1,
    L2,
    PGD,
    Ball,
    Linf,
    autoattack,
    pgd,
)
from rrl_dist.attacks.cascade import Cascade
from rrl_dist.attacks.versions import VERSIONS, AutoAttack
from rrl_dist.core.errors import UserError
from rrl_dist.training.build import build

Data = tuple[Tensor, Tensor]
SETTINGS: dict[str, Any] = {"ball": Linf(0.1), "seed": 0, "micro_batch": 32}
CONFIGS = Path(__file__).parents[2] / "configs" / "attack"
WEAK = partial(PGD, steps=2, relative_step=0.5, restarts=1, random_start=True)
STRONG = partial(APGD, loss="ce", steps=15, restarts=1, targets=1)
AIMED = partial(APGD, loss="targeted-dlr", steps=8, restarts=1, targets=4)
THREE = {"weak": WEAK, "strong": STRONG, "aimed": AIMED}


def three(**changes: Any) -> Cascade:
    return Cascade(label="three", attacks=THREE, **{**SETTINGS, **changes})


def test_the_outcome_is_the_worst_over_attacks_that_know_nothing_of_each_other(
    trained: nn.Module, unseen: Data
) -> None:
    x, y = (column[:120] for column in unseen)
    found, stages = three().stages(trained, x, y)
    broken = torch.stack([stage.wrong for stage in stages])
    assert (broken.sum(0) <= 1).all(), "each image is broken once"
    alone = [trained(x).argmax(1) != y]
    alone += [
        trained(make(**SETTINGS)(trained, x, y)).argmax(1) != y
        for make in THREE.values()
    ]
    assert torch.equal(broken.any(0), torch.stack(alone).any(0))
    for place in range(4):
        first = alone[place] & ~torch.stack(alone[:place]).any(0) if place else alone[0]
        assert torch.equal(stages[place].wrong, first)
    assert [stage.name for stage in stages] == ["clean", "pgd2", "apgd-ce", "apgd-t"]
    assert all(int(stage.wrong.sum()) > 0 for stage in stages[:3])
    assert torch.equal(trained(found.x_adv).argmax(1) != y, broken.any(0))


def test_nothing_is_asked_about_what_is_broken(
    trained: nn.Module, unseen: Data
) -> None:
    x, y = (column[:120] for column in unseen)
    found, stages = three().stages(trained, x, y)
    gone = torch.zeros(120, dtype=torch.bool)
    for stage in stages:
        assert torch.equal(stage.queries == 0, gone)
        assert stage.seconds > 0
        # What is asked about is counted, and not more than fills up a few calls.
        asked = int(stage.queries.sum())
        assert asked <= stage.passes.forward < 2 * asked + 3 * 64
        assert (stage.passes.backward > 0) == (stage.name != "clean")
        gone |= stage.wrong
    total = torch.stack([stage.queries for stage in stages]).sum(0)
    assert torch.equal(found.queries, total)


@pytest.mark.parametrize("batch", [1, 7, 120])
def test_the_same_bits_for_any_batch_and_order(
    batch: int, trained: nn.Module, unseen: Data
) -> None:
    x, y = (column[:120] for column in unseen)
    whole = three()(trained, x, y)
    order = torch.randperm(120, generator=torch.Generator().manual_seed(batch))
    parts = [three()(trained, x[i], y[i], i) for i in order.split(batch)]
    assert torch.equal(torch.cat(parts), whole[order])


def by_name(version: str, ball: Ball) -> dict[str, Any]:
    made = AutoAttack(version=version, ball=ball, seed=3, micro_batch=8)
    assert all(a.ball == ball and a.seed == 3 for a in made.attacks)
    return {attack.name: attack for attack in made.attacks}


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5), L1(12.0)], ids=Ball.label)
@pytest.mark.parametrize("version", ["standard", "plus", "rand"])
def test_components_and_settings_are_the_authors(version: str, ball: Ball) -> None:
    norm = {"linf": "Linf", "l2": "L2", "l1": "L1"}[ball.norm]
    theirs = Official(nn.Identity(), norm=norm, eps=ball.eps, version=version)
    ours = by_name(version, ball)
    assert list(ours) == theirs.attacks_to_run
    for name in ours.keys() & {"apgd-ce", "apgd-dlr"}:
        assert ours[name].restarts == theirs.apgd.n_restarts
        assert ours[name].steps == theirs.apgd.n_iter == 100
        assert ours[name].eot == theirs.apgd.eot_iter
        assert ours[name].targets == 1
    if "apgd-t" in ours:
        targeted = theirs.apgd_targeted
        assert ours["apgd-t"].targets == targeted.n_target_classes
        assert ours["apgd-t"].restarts == targeted.n_restarts == 1
        assert ours["apgd-t"].steps == targeted.n_iter
        assert ours["fab-t"].targets == theirs.fab.n_target_classes
        # Their code sets restarts to 1 whenever it runs its targeted form.
        assert ours["fab-t"].restarts == 1
        assert ours["fab-t"].steps == theirs.fab.n_iter
        square = theirs.square
        assert not square.rescale_schedule
        assert (ours["square"].queries, ours["square"].schedule) == (5000, 10_000)
        assert ours["square"].queries == square.n_queries
        assert ours["square"].p_init == square.p_init
    if "fab" in ours:
        assert ours["fab"].targets is None
        assert ours["fab"].restarts == theirs.fab.n_restarts == 5


def test_in_turn_is_handed_to_every_component() -> None:
    settings = {"version": "plus", **SETTINGS}
    for turn in (True, False):
        made: tuple[Any, ...] = AutoAttack(in_turn=turn, **settings).attacks
        assert [attack.in_turn for attack in made] == [turn] * 6


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """AutoAttack of few steps."""
    monkeypatch.setitem(
        VERSIONS, "standard", lambda ball: {"strong": STRONG, "aimed": AIMED}
    )


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.5)], ids=Ball.label)
def test_one_call_attacks_images_and_tells_how(
    ball: Ball, trained: nn.Module, unseen: Data
) -> None:
    x, y = (column[:64] for column in unseen)
    images = autoattack(trained, x, y, ball=ball, batch_size=16)
    told = autoattack(trained, x, y, ball=ball, batch_size=16, details=True)
    assert torch.equal(images, told.x_adv)
    assert torch.equal(trained(images).argmax(1) == y, told.robust)
    assert (ball.distance(images, x) <= ball.eps * (1 + 1e-6)).all()
    assert [stage.name for stage in told.stages] == ["clean", "apgd-ce", "apgd-t"]
    assert 5 < int(told.robust.sum()) < 60


@pytest.mark.usefixtures("short")
def test_nothing_all_wrong_and_radius_zero(trained: nn.Module, unseen: Data) -> None:
    x, y = (column[:8] for column in unseen)
    wrong = (trained(x).argmax(1) + 1) % 10
    none = autoattack(trained, x[:0], y[:0], ball=Linf(0.1), details=True)
    assert none.x_adv.shape == x[:0].shape
    assert none.robust.shape == (0,)
    same = autoattack(trained, x, wrong, ball=Linf(0.1), details=True)
    assert torch.equal(same.x_adv, x)
    assert not same.robust.any()
    assert torch.equal(autoattack(trained, x, y, ball=Linf(0.0)), x)


def test_pgd_in_one_call(trained: nn.Module, unseen: Data) -> None:
    x, y = (column[:64] for column in unseen)
    images = pgd(trained, x, y, ball=Linf(0.1), steps=5, batch_size=16)
    right = trained(images).argmax(1) == y
    assert int(right.sum()) < int((trained(x).argmax(1) == y).sum()) - 5


def test_mistakes_are_told_in_one_line() -> None:
    with pytest.raises(UserError, match=r"version=best; choose standard\|plus\|rand"):
        AutoAttack(version="best", **SETTINGS)
    with pytest.raises(UserError, match="three is of no attacks"):
        Cascade(label="three", attacks={}, **SETTINGS)


def test_fab_and_pgd_attack_in_an_l1_ball(trained: nn.Module, unseen: Data) -> None:
    x, y = (column[:64] for column in unseen)
    ball = L1(2.0)
    fab = FAB(
        ball=ball,
        steps=20,
        restarts=1,
        targets=3,
        alpha_max=0.1,
        eta=1.05,
        beta=0.9,
        seed=0,
        micro_batch=32,
    )
    right = int((trained(x).argmax(1) == y).sum())
    for x_adv in (fab(trained, x, y), pgd(trained, x, y, ball=ball, steps=20)):
        assert (ball.distance(x_adv, x) <= 2 * (1 + 1e-6)).all()
        assert int((trained(x_adv).argmax(1) == y).sum()) < right - 5


class Standardized(nn.Module):
    """NaN for an image of one colour, as zeros are."""

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        flat = (flat - flat.mean(1, keepdim=True)) / flat.std(1, keepdim=True)
        return torch.stack([flat[:, 0], flat[:, 1], flat[:, 2]], 1)


@pytest.mark.usefixtures("short")
def test_where_all_is_broken_nothing_is_asked_any_more() -> None:
    x = torch.rand(4, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    model = Standardized().eval()
    y = model(x).argmax(1)
    found = autoattack(model, x, y, ball=Linf(0.9), details=True)
    assert not found.robust.any()
    assert found.stages[-1].queries.sum() == 0
    assert found.stages[-1].passes.forward == 0


@pytest.mark.parametrize("name", ["apgd_ce", "apgd_dlr", "apgd_t", "fab_t", "square"])
def test_an_attack_of_the_suites_has_the_settings_of_autoattacks(name: str) -> None:
    """configs/attack holds each of them for itself."""
    config = OmegaConf.to_container(OmegaConf.load(CONFIGS / f"{name}.yaml"))
    settings = {"ball": L2(0.5), "seed": 0, "micro_batch": 32}
    alone = build(config, **settings)
    version = "plus" if name == "apgd_dlr" else "standard"
    made = VERSIONS[version](L2(0.5))[name](**settings)
    if name == "apgd_dlr":
        made = replace(made, restarts=alone.restarts)
    assert alone == made


def test_two_attacks_of_one_name_are_refused() -> None:
    with pytest.raises(UserError, match="two attacks of one name: pgd2, pgd2"):
        Cascade(label="two", attacks={"a": WEAK, "b": WEAK}, **SETTINGS)
