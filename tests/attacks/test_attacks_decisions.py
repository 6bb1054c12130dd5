"""Boundary and HopSkipJump through foolbox, and TangentAttack next to them."""

import warnings
from collections.abc import Callable
from threading import active_count

import pytest
import torch
from torch import Tensor, nn

from rrl_dist.attacks import L2
from rrl_dist.attacks import foolbox_attacks as module
from rrl_dist.attacks.foolbox_attacks import FoolboxAttack
from rrl_dist.attacks.starts import start_images
from rrl_dist.core.errors import UserError
from rrl_dist.core.randomness import torch_stream
from tests.attacks.decisions import (
    boundary,
    compared,
    hopskipjump,
    on_the_fixture,
    tangent,
)
from tests.attacks.test_attacks_tangent import right

with warnings.catch_warnings():
    # An attack that is not used here imports a name that scipy has moved.
    warnings.simplefilter("ignore", DeprecationWarning)
    from foolbox.attacks import HopSkipJumpAttack
    from foolbox.models.pytorch import PyTorchModel

Data = tuple[Tensor, Tensor]
Make = Callable[..., FoolboxAttack]
both = pytest.mark.parametrize("make", [boundary, hopskipjump])


@both
def test_only_what_was_right_is_handed_over(
    make: Make, model: nn.Module, unseen: Data
) -> None:
    """HopSkipJump would ask without end about the others."""
    x, y = (column[:8].clone() for column in unseen)
    with torch.no_grad():
        y[:4] = (model(x[:4]).argmax(1) + 1) % 10
        wrong = model(x).argmax(1) != y
    found = make(40).run(model, x, y)
    assert torch.equal(found.x_adv[wrong], x[wrong])
    assert (found.queries[wrong] == 1).all()
    assert ((found.queries[~wrong] > 1) & (found.queries[~wrong] <= 40)).all()
    with torch.no_grad():
        assert (model(found.x_adv).argmax(1) != y).all()
    assert (L2(1.0).distance(found.x_adv, x)[~wrong] > 0).all()


@both
def test_batch_size_and_order_change_no_bit(
    make: Make, model: nn.Module, unseen: Data
) -> None:
    x, y = right(model, unseen, 20)
    before = torch.get_rng_state()
    whole = make(30).run(model, x, y)
    assert torch.equal(torch.get_rng_state(), before)
    order = torch.tensor([7, 3, 19, 0, 12])
    for rows in order.split(2):
        part = make(30).run(model, x[rows], y[rows], rows)
        assert torch.equal(part.x_adv, whole.x_adv[rows])
        assert torch.equal(part.queries, whole.queries[rows])


class SpentError(Exception):
    """The queries of a sample are."""


class Asked(nn.Module):
    """Notes the images that a model was asked about, up to a number of them."""

    def __init__(self, model: nn.Module, most: int) -> None:
        super().__init__()
        self.model, self.most = model, most
        self.images: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if len(self.images) == self.most:
            raise SpentError
        self.images.append(x)
        found: Tensor = self.model(x.expand(16, *x.shape[1:]).contiguous())[:1]
        return found


def test_hopskipjump_asks_what_foolbox_asks(model: nn.Module, unseen: Data) -> None:
    """Alone, from the same start and draws, it asks the same and finds the same."""
    queries = 60
    attack = hopskipjump(queries, directions=10)
    x, y = right(model, unseen, 2)
    found = attack.run(model, x, y).x_adv
    for i in range(2):
        image, index = x[[i]], torch.tensor([i])
        starts = (
            start_images(image, torch.tensor([n]), seed=0, index=index)
            for n in range(queries)
        )
        tried = 0
        for start in starts:
            tried += 1
            if model(start).argmax() != y[i]:
                break
        # Without the clean image's, the starts', and the last.
        asked = Asked(model, queries - 2 - tried).eval()
        theirs = HopSkipJumpAttack(steps=99, initial_gradient_eval_steps=10)
        bounded = PyTorchModel(asked, bounds=(0, 1), device="cpu")
        with torch.random.fork_rng(), torch.no_grad():
            torch.set_rng_state(torch_stream(0, attack.name, i).get_state())
            with pytest.raises(SpentError):
                theirs.run(bounded, image, y[[i]], starting_points=start)
        images = torch.cat([start, *asked.images])
        with torch.no_grad():
            wrong = model(images).argmax(1) != y[i]
        far = (images - image).flatten(1).norm(dim=1)
        expected = float(far[wrong].min())
        ours = float((found[[i]] - image).norm())
        assert ours == pytest.approx(expected, rel=2e-3)


@both
def test_without_foolbox_it_is_refused(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install \"rrl_dist\[foolbox\]\""):
        make(40)


class Breaks(nn.Module):
    """Fails at its fifth call."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == 5:
            raise RuntimeError("out of memory")
        total = x.flatten(1).sum(1)
        return torch.stack([9 - total, total - 9], 1)


@both
def test_an_error_leaves_no_thread_and_no_other_draws(make: Make) -> None:
    x, y = torch.full((3, 1, 4, 4), 0.5), torch.zeros(3, dtype=torch.int64)
    before, threads = torch.get_rng_state(), active_count()
    with pytest.raises(RuntimeError, match="out of memory"):
        make(20).run(Breaks(), x, y)
    assert active_count() == threads
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
@pytest.mark.parametrize("queries", [300, 1000])
def test_tangent_is_as_near_as_hopskipjump(
    queries: int, model: nn.Module, unseen: Data
) -> None:
    x, y = right(model, unseen, 32)
    attacks = (tangent(queries), hopskipjump(queries))
    ours, theirs = compared(attacks, model, x, y).values()
    assert ours.median() <= 1.05 * theirs.median()


@pytest.mark.long
def test_on_cifar10_too_with_the_default_of_queries() -> None:
    ours, theirs = on_the_fixture(64, 5000).values()
    assert ours.median() <= 1.05 * theirs.median()
