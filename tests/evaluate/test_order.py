"""Attacks in turn by what they cost for each image that they may break."""

import pytest
import torch
from torch import nn

from rrl_dist.attacks.balls import Linf
from rrl_dist.attacks.passes import counted
from rrl_dist.attacks.versions import AutoAttack
from rrl_dist.core.errors import UserError
from rrl_dist.evaluate.grid import Link
from rrl_dist.evaluate.order import in_order, work_of
from rrl_dist.evaluate.plan import build_suite
from tests.training.stages import composed


def autoattack(version: str) -> AutoAttack:
    return AutoAttack(version=version, ball=Linf(1e-6), seed=0, micro_batch=16)


def test_autoattacks_own_order_is_the_cheapest() -> None:
    standard = autoattack("standard")
    assert in_order(standard, "cheapest").names == standard.names
    assert standard.names == ("clean", "apgd-ce", "apgd-t", "fab-t", "square")


def test_what_costs_most_for_what_it_breaks_comes_last() -> None:
    plus = autoattack("plus")
    assert in_order(plus, "standard") is plus
    found = in_order(plus, "cheapest")
    assert sorted(found.names) == sorted(plus.names)
    assert found.names[:2] == ("clean", "apgd-ce")
    works = {attack.name: work_of(attack, 10) or 0.0 for attack in found.attacks}
    assert found.names.index("fab") > found.names.index("apgd-t")
    assert works["fab"] > works["apgd-t"]


def test_an_order_that_there_is_not_is_refused() -> None:
    with pytest.raises(UserError, match=r"suite\.order=fastest; choose cheapest\|"):
        in_order(autoattack("standard"), "fastest")


ORDERS = [("cheapest", "apgd-t"), ("standard", "fab")]


@pytest.mark.parametrize(("order", "first"), ORDERS)
def test_a_suite_says_which_order(order: str, first: str) -> None:
    config = composed("suite=autoattack_plus", f"suite.order={order}")
    suite = build_suite(config["suite"], config["ball"], seed=0)
    (chain,) = (chain for chain in suite.chains if len(chain) > 1)
    names = [link.attack for link in chain]
    assert min(("fab", "apgd-t"), key=names.index) == first
    assert chain[0] == Link(chain[0].component, "clean")


class Sure(nn.Module):
    """Never wrong about its own answers in so small a ball."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3 * 8 * 8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 100 * self.head(x.flatten(1))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["apgd-ce", "apgd-t", "fab-t", "square"])
def test_attacks_say_what_they_take(name: str) -> None:
    """Of images that stay right, within a tenth; fillings of calls are not counted."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Sure().eval()
    x = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = model(x).argmax(1)
    (attack,) = (a for a in autoattack("standard").attacks if a.name == name)
    with counted(model) as passes:
        attack.run(model, x, y)
    told = attack.cost(10)
    assert passes.forward / 16 == pytest.approx(told.forward, rel=0.1)
    assert passes.backward / 16 == pytest.approx(told.backward, rel=0.1, abs=1)
