"""What holds for every method that learns from labels, attacked or not."""

from dataclasses import replace

import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from rrl_dist.attacks.balls import L2, Ball, Linf
from rrl_dist.core.batch import Batch
from rrl_dist.models.encoder import Classifier
from tests.objectives.harness import own_batch, small_encoder
from tests.objectives.labelling import EPS, MAKERS, labelled, raised

every = pytest.mark.parametrize("name", MAKERS)
attacked = pytest.mark.parametrize("name", ["pgd_at", "trades"])


@every
def test_a_frozen_encoder_keeps_its_weights_and_its_statistics(name: str) -> None:
    encoder = small_encoder(1)
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    objective = labelled(name, encoder, train_encoder=False).train()
    assert not encoder.training
    trained = [p for p in objective.parameters() if p.requires_grad]
    assert {id(p) for p in trained} == {id(p) for p in objective.head.parameters()}
    head = objective.head.weight.detach().clone()
    optimizer = torch.optim.SGD(trained, lr=0.1)
    for step in range(3):
        batch = objective.inner(replace(own_batch(name), step=step))
        optimizer.zero_grad()
        objective(batch)["loss"].backward()
        optimizer.step()
    for key, value in encoder.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert not torch.equal(objective.head.weight, head)


@every
def test_a_trained_encoder_moves_and_so_do_its_statistics(name: str) -> None:
    encoder = small_encoder(1)
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    objective = labelled(name, encoder).train()
    objective(objective.inner(own_batch(name)))["loss"].backward()
    torch.optim.SGD(objective.parameters(), lr=0.1).step()
    same = [k for k, v in encoder.state_dict().items() if torch.equal(v, before[k])]
    assert set(same) == {"normalize.mean", "normalize.std"}


@every
def test_what_is_kept_is_a_classifier_of_both(name: str) -> None:
    objective = labelled(name, small_encoder(1)).eval()
    model = objective.trained()
    assert isinstance(model, Classifier)
    x = own_batch(name).views[0]
    assert torch.equal(model(x), objective.logits(x))


@pytest.mark.parametrize("train_encoder", [True, False], ids=["all", "head"])
@pytest.mark.parametrize("ball", [Linf(EPS), L2(0.5)], ids=["linf", "l2"])
@attacked
def test_the_attack_raises_its_loss_inside_the_ball(
    name: str, ball: Ball, train_encoder: bool
) -> None:
    encoder = small_encoder(1)
    objective = labelled(name, encoder, ball=ball, train_encoder=train_encoder)
    batch = own_batch(name)
    x = batch.views[0]
    x_adv = objective.inner(batch).extras[f"{name}_x"]
    assert not x_adv.requires_grad
    assert float(ball.distance(x_adv, x).max()) <= ball.eps * (1 + 1e-5)
    assert 0 <= float(x_adv.min()) <= float(x_adv.max()) <= 1
    before = raised(objective, name, batch, x)
    assert bool((raised(objective, name, batch, x_adv) > before).all())


@attacked
def test_each_step_goes_up(name: str) -> None:
    """The same ascent written out, from the same start."""
    objective = labelled(name, small_encoder(1)).train()
    with torch.no_grad():
        objective.head.weight.mul_(100)  # answers that float32 can tell apart
    batch = own_batch(name)
    x = batch.views[0]
    # Without a step the ball's own projection of the start is all there is.
    still = labelled(name, small_encoder(1), steps=1, relative_step=1e-12).train()
    still.load_state_dict(objective.state_dict())
    moved = still.inner(batch).extras[f"{name}_x"]
    for _ in range(3):
        moved.requires_grad_()
        value = raised(objective, name, batch, moved).sum()
        (gradient,) = torch.autograd.grad(value, moved)
        moved = moved.detach() + 0.25 * EPS * gradient.sign()
        moved = moved.clamp(x - EPS, x + EPS).clamp(0, 1)
    found = objective.inner(batch).extras[f"{name}_x"]
    # A sign may flip where a gradient is next to nothing.
    assert float(((found - moved).abs() < 1e-6).float().mean()) > 0.99


@pytest.mark.parametrize("train_encoder", [True, False], ids=["all", "head"])
@attacked
def test_inner_leaves_no_trace(name: str, train_encoder: bool) -> None:
    objective = labelled(name, small_encoder(1), train_encoder=train_encoder).train()
    modes = [m.training for m in objective.modules()]
    state = {k: v.clone() for k, v in objective.state_dict().items()}
    trained = [p.requires_grad for p in objective.parameters()]
    objective.inner(own_batch(name))
    assert [m.training for m in objective.modules()] == modes
    assert [p.requires_grad for p in objective.parameters()] == trained
    assert all(p.grad is None for p in objective.parameters())
    for key, value in objective.state_dict().items():
        assert torch.equal(value, state[key]), key


@attacked
def test_draws_belong_to_samples_and_differ_from_step_to_step(name: str) -> None:
    objective = labelled(name, small_encoder(1)).train()
    batch = own_batch(name)
    first = objective.inner(batch).extras[f"{name}_x"]
    assert torch.equal(objective.inner(batch).extras[f"{name}_x"], first)
    later = objective.inner(replace(batch, step=8)).extras[f"{name}_x"]
    assert not torch.equal(later, first)
    views = tuple(view[8:] for view in batch.views)
    half = Batch(batch.images[8:], views, batch.labels[8:], batch.index[8:], step=7)
    alone = objective.inner(half).extras[f"{name}_x"]
    assert float(((alone - first[8:]).abs() < 1e-6).float().mean()) > 0.99


@attacked
def test_a_ball_of_one_point_gives_the_image_itself(name: str) -> None:
    objective = labelled(name, small_encoder(1), ball=Linf(0.0)).train()
    batch = objective.inner(own_batch(name))
    assert torch.equal(batch.extras[f"{name}_x"], batch.views[0])
    loss = objective.eval()(batch)["loss"]
    plain = labelled("supervised", small_encoder(1)).eval()
    plain.load_state_dict(objective.state_dict())
    torch.testing.assert_close(loss, plain(own_batch(name))["loss"])


@every
def test_frozen_batch_norm_stays_while_the_encoder_learns(name: str) -> None:
    encoder = small_encoder(1)
    objective = labelled(name, encoder, freeze_batch_norm=True).train()
    norms = {
        f"{place}.{key}"
        for place, module in encoder.named_modules()
        if isinstance(module, _BatchNorm)
        for key in module.state_dict()
    }
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    assert len(norms) >= 5
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)
    for step in range(2):
        batch = objective.inner(replace(own_batch(name), step=step))
        optimizer.zero_grad()
        objective(batch)["loss"].backward()
        optimizer.step()
    after = encoder.state_dict()
    moved = {
        name for name, value in before.items() if not torch.equal(value, after[name])
    }
    assert moved
    assert not moved & norms
