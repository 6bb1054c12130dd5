from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rrl_dist.attacks.balls import Linf
from rrl_dist.core.batch import Batch
from rrl_dist.objectives.deacl import DeACL
from rrl_dist.objectives.objective import Frozen
from tests.objectives.harness import own_batch, small_encoder, small_objective


def literal_loss(objective: DeACL, x: Tensor, x_adv: Tensor) -> Tensor:
    """Section 3.3 as written: one forward of both, sums over samples in a loop."""
    h = objective.encoder(torch.cat([x, x_adv])).double()
    with torch.no_grad():
        t = objective.teacher.module(x).double()
    n, total = len(x), torch.zeros((), dtype=torch.float64)
    for i in range(n):
        clean, attacked = h[i], h[n + i]
        total = total - clean @ t[i] / (clean.norm() * t[i].norm())
        both = clean.norm() * attacked.norm()
        total = total - objective.weight * (attacked @ clean) / both
    return total / n


@pytest.fixture
def objective() -> DeACL:
    made = small_objective("deacl")
    assert isinstance(made, DeACL)
    return made.train()


def test_loss_and_gradient_equal_the_literal_formula(objective: DeACL) -> None:
    batch = objective.inner(own_batch("deacl"))
    expected = literal_loss(objective, batch.views[0], batch.extras["x_adv"])
    names, weights = zip(*objective.named_parameters(), strict=True)
    wanted = torch.autograd.grad(expected, weights)
    loss = objective(batch)["loss"]
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    found = torch.autograd.grad(loss, weights)
    for name, one, other in zip(names, found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6, msg=name)


def test_gradient_flows_into_both_arguments_of_the_second_term(
    objective: DeACL,
) -> None:
    batch = objective.inner(own_batch("deacl"))
    h, h_adv = objective.encoder(
        torch.cat([batch.views[0], batch.extras["x_adv"]])
    ).chunk(2)
    with_both = torch.autograd.grad(
        -torch.cosine_similarity(h_adv, h).mean(),
        list(objective.parameters()),
        retain_graph=True,
    )
    detached = torch.autograd.grad(
        -torch.cosine_similarity(h_adv, h.detach()).mean(),
        list(objective.parameters()),
    )
    assert any(
        not torch.allclose(a, b, rtol=1e-2)
        for a, b in zip(with_both, detached, strict=True)
    )


def test_inner_raises_the_distance_to_the_teacher_inside_the_ball(
    objective: DeACL,
) -> None:
    batch = own_batch("deacl")
    x = batch.views[0]
    after = objective.inner(batch)
    x_adv = after.extras["x_adv"]
    assert float((x_adv - x).abs().max()) <= 8 / 255 * (1 + 1e-6)
    assert float(x_adv.min()) >= 0
    assert float(x_adv.max()) <= 1
    objective.eval()
    target = objective.teacher(x)
    torch.testing.assert_close(after.extras["target"], target)
    start = objective.ball.start(x, seed=0, key=("deacl", 7), index=batch.index)

    @torch.no_grad()
    def similarity(images: Tensor) -> Tensor:
        return torch.cosine_similarity(objective.encoder(images), target)

    assert bool((similarity(x_adv) < similarity(x)).all())
    assert float(similarity(x_adv).mean()) < float(similarity(start).mean())


def test_inner_leaves_no_trace(objective: DeACL) -> None:
    objective.encoder.backbone.layers[1].eval()  # type: ignore[union-attr,index]
    modes = [m.training for m in objective.modules()]
    state = {k: v.clone() for k, v in objective.state_dict().items()}
    objective.inner(own_batch("deacl"))
    assert [m.training for m in objective.modules()] == modes
    assert all(p.grad is None for p in objective.parameters())
    assert all(p.requires_grad for p in objective.parameters())
    for name, value in objective.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_inner_draws_differ_from_step_to_step_and_belong_to_samples(
    objective: DeACL,
) -> None:
    batch = own_batch("deacl")
    first = objective.inner(batch).extras["x_adv"]
    again = objective.inner(batch).extras["x_adv"]
    later = objective.inner(replace(batch, step=8)).extras["x_adv"]
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    half = Batch(
        batch.images[8:],
        (batch.views[0][8:],),
        batch.labels[8:],
        batch.index[8:],
        step=7,
    )
    alone = objective.inner(half).extras["x_adv"]
    # Kernels round otherwise at another batch size; a sign may flip where a gradient
    # is next to nothing, so equality is asked of nearly all pixels.
    same = (alone - first[8:]).abs() < 1e-6
    assert float(same.float().mean()) > 0.99


def test_the_teacher_is_no_part_of_the_student(objective: DeACL) -> None:
    names = [name for name, _ in objective.named_parameters()]
    assert all(name.startswith("encoder.") for name in names)
    assert not any("teacher" in name for name in objective.state_dict())
    teacher = objective.teacher.module
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    objective(objective.inner(own_batch("deacl")))["loss"].backward()
    assert all(p.grad is None for p in teacher.parameters())
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_student_starts_with_the_teachers_weights_where_asked() -> None:
    teacher = small_encoder(3)
    student = small_encoder(1)
    DeACL(
        encoder=student,
        teacher=Frozen(teacher, sha256="teacher"),
        weight=2.0,
        ball=Linf(8 / 255),
        steps=1,
        relative_step=0.25,
        start_from_teacher=True,
        seed=0,
    )
    for name, value in student.state_dict().items():
        assert torch.equal(value, teacher.state_dict()[name]), name
    assert all(p.requires_grad for p in student.parameters())
