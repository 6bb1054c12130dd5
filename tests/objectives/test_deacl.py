from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rrl_dist.core.batch import Batch
from rrl_dist.core.collectives import all_mean
from tests.gloo import run_workers
from tests.objectives.distilling import (
    EPS,
    OPTIONS,
    RAMP,
    distilling,
    given_batch,
    literal_loss,
    literal_spaces,
    literal_student,
    literal_target,
    moved_by_a_literal_attack,
    paper,
)

every_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


@every_option
def test_loss_and_gradient_equal_the_literal_formula(options: dict[str, Any]) -> None:
    objective = distilling(**options)
    batch = objective.inner(given_batch())
    expected = literal_loss(objective, batch)
    names, weights = zip(*objective.named_parameters(), strict=True)
    wanted = torch.autograd.grad(expected, weights)
    loss = objective(batch)["loss"]
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=1e-6)
    found = torch.autograd.grad(loss, weights)
    for name, one, other in zip(names, found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=3e-6, msg=name)


def test_the_papers_loss_is_the_authors_but_for_a_constant() -> None:
    """Sums of cosines, each from its own definition."""
    objective = distilling()
    assert objective.weight == 2
    batch = objective.inner(given_batch())
    x = torch.cat([batch.views[0], batch.extras["x_adv"]])
    h, h_adv = objective.encoder(x).double().chunk(2)
    t = literal_target(objective, batch).double()
    total = torch.zeros((), dtype=torch.float64)
    for i in range(len(t)):
        total = total - h[i] @ t[i] / (h[i].norm() * t[i].norm())
        total = total - 2 * (h_adv[i] @ h[i]) / (h_adv[i].norm() * h[i].norm())
    loss = objective(batch)["loss"]
    torch.testing.assert_close(loss.double(), total / len(t) + 1 + 2)


@every_option
def test_the_attack_is_the_literal_one(options: dict[str, Any]) -> None:
    objective = distilling(**options)
    batch = given_batch()
    expected = moved_by_a_literal_attack(objective, batch)
    found = objective.inner(batch).extras["x_adv"]
    # A sign may turn where a gradient is next to nothing.
    same = (found - expected).abs() < 1e-6
    assert float(same.float().mean()) > 0.99


@every_option
def test_the_attack_raises_its_distance_inside_the_ball(
    options: dict[str, Any],
) -> None:
    objective = distilling(**options)
    batch = given_batch()
    x = batch.views[0]
    after = objective.inner(batch)
    x_adv = after.extras["x_adv"]
    assert float((x_adv - x).abs().max()) <= EPS * (1 + 1e-6)
    assert float(x_adv.min()) >= 0
    assert float(x_adv.max()) <= 1
    objective.eval()
    target = literal_target(objective, batch)
    torch.testing.assert_close(after.extras["target"], target)
    with torch.no_grad():
        h = literal_student(objective, x, "clean")
        h_adv = literal_student(objective, x_adv, "adversarial")
        anchor = h if objective.target == "student" else target
        clean = literal_spaces(objective, h, anchor)
        attacked = literal_spaces(objective, h_adv, anchor)
    assert bool((attacked > clean).all())


def test_targets_are_different_attacks() -> None:
    batch = given_batch()
    one, other = (
        distilling(target=target).inner(batch).extras["x_adv"]
        for target in ("teacher", "student")
    )
    assert float((one - other).abs().mean()) > EPS / 20


def test_gradient_flows_into_both_arguments_of_the_second_term() -> None:
    objective = distilling()
    batch = objective.inner(given_batch())
    x = torch.cat([batch.views[0], batch.extras["x_adv"]])
    h, h_adv = objective.encoder(x).chunk(2)
    weights = list(objective.parameters())
    away, fixed = (
        objective.matching.away_from(h),
        objective.matching.away_from(h.detach()),
    )
    both = torch.autograd.grad(away(h_adv).mean(), weights, retain_graph=True)
    one = torch.autograd.grad(fixed(h_adv).mean(), weights)
    pairs = zip(both, one, strict=True)
    assert any(not torch.allclose(a, b, rtol=1e-2) for a, b in pairs)


@every_option
def test_inner_leaves_no_trace(options: dict[str, Any]) -> None:
    objective = distilling(**options)
    objective.encoder.get_submodule("backbone.layers.1").eval()
    head = objective.teacher.projector
    assert head is not None
    owned = [objective, objective.teacher.module, head]
    modes = [m.training for module in owned for m in module.modules()]
    state = [{k: v.clone() for k, v in m.state_dict().items()} for m in owned]
    objective.inner(given_batch())
    assert [m.training for module in owned for m in module.modules()] == modes
    assert all(p.grad is None for module in owned for p in module.parameters())
    assert all(p.requires_grad for p in objective.parameters())
    for module, before in zip(owned, state, strict=True):
        for name, value in module.state_dict().items():
            assert torch.equal(value, before[name]), name


def test_inner_draws_differ_from_step_to_step_and_belong_to_samples() -> None:
    objective = distilling()
    batch = given_batch()
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


@pytest.mark.parametrize("projector", [False, True])
def test_the_teacher_is_no_part_of_the_student(projector: bool) -> None:
    objective = distilling(projector=projector)
    names = [name for name, _ in objective.named_parameters()]
    assert all(name.startswith("encoder.") for name in names)
    assert all(name.startswith("encoder.") for name in objective.state_dict())
    head = objective.teacher.projector
    assert head is not None
    owned = torch.nn.ModuleList([objective.teacher.module, head])
    before = {k: v.clone() for k, v in owned.state_dict().items()}
    objective(objective.inner(given_batch()))["loss"].backward()
    assert not any(p.requires_grad for p in owned.parameters())
    assert all(p.grad is None for p in owned.parameters())
    assert not any(m.training for m in owned[0].modules())
    assert not any(m.training for m in head.modules())
    for name, value in owned.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_the_student_starts_with_the_teachers_weights_where_asked() -> None:
    assert paper()["start_from_teacher"], "as in the authors' script"
    objective = distilling(start_from_teacher=True)
    teacher = objective.teacher.module.state_dict()
    for name, value in objective.encoder.state_dict().items():
        assert torch.equal(value, teacher[name]), name
    assert all(p.requires_grad for p in objective.parameters())


@pytest.mark.parametrize("precision", ["step", "fp32"])
def test_attacks_in_full_precision_do_not_know_of_the_steps(precision: str) -> None:
    objective = distilling(attack_precision=precision)
    batch = given_batch()
    plain = objective.inner(batch).extras
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under = objective.inner(batch).extras
        loss = objective(batch.with_extras(**under))["loss"]
        half = objective.encoder.backbone.layers[0](batch.images)  # type: ignore[union-attr,index]
    assert half.dtype == torch.bfloat16, "the step itself stays in the strategy's"
    assert bool(loss.isfinite())
    same = [torch.equal(plain[key], under[key]) for key in ("x_adv", "target")]
    assert all(same) if precision == "fp32" else not any(same)


def test_terms_are_logged_by_name_with_the_weight_that_counts() -> None:
    ramp = {"_target_": RAMP, "start": 0.4, "end": 0.6}
    objective = distilling(ramp=ramp)
    batch = objective.inner(given_batch())
    for progress, weight in ((0.3, 0.0), (0.5, 1.0), (0.9, 2.0)):
        terms = objective(replace(batch, progress=progress))
        assert terms.keys() == {
            "loss",
            "clean_distance",
            "adversarial_distance",
            "adversarial_weight",
        }
        assert float(terms["adversarial_weight"]) == pytest.approx(weight)
        wanted = terms["clean_distance"] + weight * terms["adversarial_distance"]
        torch.testing.assert_close(terms["loss"].detach(), wanted)
        assert float(terms["adversarial_distance"]) > 1e-3, "told while it is off"
        assert [k for k, v in terms.items() if v.requires_grad] == ["loss"]


def global_gradient(options: dict[str, Any]) -> tuple[float, dict[str, Tensor]]:
    """The loss, and the mean over workers of its gradients."""
    objective = distilling(**options)
    loss = objective(objective.inner(given_batch()))["loss"]
    named = dict(objective.named_parameters())
    gradients = torch.autograd.grad(loss, list(named.values()))
    mean = [all_mean(gradient) for gradient in gradients]
    return float(loss.detach()), dict(zip(named, mean, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 4])
@pytest.mark.parametrize(
    "name", ["image", "l2 of projections", "kl to the teacher", "branches"]
)
def test_options_do_not_depend_on_the_number_of_workers(
    name: str, workers: int
) -> None:
    loss, gradient = global_gradient(OPTIONS[name])
    assert max(float(g.abs().max()) for g in gradient.values()) > 1e-3
    for found, grads in run_workers(workers, global_gradient, OPTIONS[name]):
        assert found == pytest.approx(loss, rel=1e-5, abs=1e-6)
        for key, expected in gradient.items():
            torch.testing.assert_close(grads[key], expected, rtol=1e-3, atol=5e-6)
