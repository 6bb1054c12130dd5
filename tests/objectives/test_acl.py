from copy import deepcopy
from dataclasses import replace
from functools import partial
from typing import Any, cast

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rrl_dist.attacks.balls import L2, Ball, Linf
from rrl_dist.core.batch import Batch
from rrl_dist.core.errors import UserError
from rrl_dist.models.branches import Branch
from rrl_dist.models.encoder import Encoder
from rrl_dist.models.heads import NormedProjector, PlainProjector
from rrl_dist.objectives.acl import ACL
from rrl_dist.objectives.simclr import SimCLR, nt_xent
from tests.composing import compose
from tests.objectives.contrasting import EPS, acl
from tests.objectives.harness import own_batch, small_encoder
from tests.objectives.test_simclr import literal_nt_xent
from tests.training.test_micro_batch import encoder as without_batch_norm

KEPT = pytest.mark.parametrize("kept", ["adversarial", "clean", "shared"])


def contrasted(**options: Any) -> ACL:
    """In train mode; its two sets of batch norms are apart and have seen images."""
    torch.manual_seed(2)
    objective = acl(small_encoder(1), sync_bn=True, **options)
    generator = torch.Generator().manual_seed(6)
    for norm in objective.modules():
        if isinstance(norm, _BatchNorm) and norm.affine:
            for value in (norm.weight, norm.bias):
                value.data.add_(torch.rand(value.shape, generator=generator) / 2)
    objective.train()
    batch = own_batch("acl")
    seen = batch.with_extras(acl_worst=0.8 * torch.cat(batch.views))
    with torch.no_grad():
        for _ in range(40):
            objective(seen)
    return objective


def network(objective: ACL, kind: str) -> nn.Sequential:
    """Encoder and head with one stream's batch norms for good, as a network apart."""
    copy = deepcopy(nn.Sequential(objective.encoder, objective.projector))
    if kind == objective.batch_norm:
        return copy
    for branch, part in zip(objective.branches, copy, strict=False):
        assert isinstance(branch, Branch)
        for name, norm in zip(branch._names, branch.norms, strict=True):
            parent, _, leaf = name.rpartition(".")
            setattr(part.get_submodule(parent), leaf, deepcopy(norm))
    return copy


def projections(network: nn.Module, *views: Tensor) -> tuple[Tensor, ...]:
    return F.normalize(network(torch.cat(views)), dim=1).chunk(2)


def worst_views(batch: Batch) -> tuple[Tensor, ...]:
    return batch.extras["acl_worst"].chunk(2)


def streams(objective: ACL) -> tuple[nn.Sequential, nn.Sequential]:
    """Of clean and of attacked images, apart; the same one where they share norms."""
    clean = network(objective, "clean")
    shared = objective.batch_norm == "shared"
    return clean, clean if shared else network(objective, "adversarial")


@KEPT
def test_each_stream_is_simclr_with_batch_norms_of_its_own(kept: str) -> None:
    objective = contrasted(batch_norm=kept, weight=0.3)
    batch = objective.inner(own_batch("acl"))
    clean, worst = streams(objective)
    za, zb = projections(clean, *batch.views)
    wa, wb = projections(worst, *worst_views(batch))
    terms = objective(batch)
    two = [literal_nt_xent(*z, temperature=0.5) for z in ((za, zb), (wa, wb))]
    assert float(terms["clean_loss"]) == pytest.approx(two[0], rel=1e-5)
    assert float(terms["adversarial_loss"]) == pytest.approx(two[1], rel=1e-5)
    expected = 0.7 * two[0] + 0.3 * two[1]
    assert float(terms["loss"].detach()) == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(terms["view_similarity"], (za * zb).sum(1).mean())
    torch.testing.assert_close(terms["adversarial_similarity"], (wa * wb).sum(1).mean())


@KEPT
def test_gradients_and_moving_statistics_are_those_of_networks_apart(kept: str) -> None:
    objective = contrasted(batch_norm=kept, weight=0.3)
    batch = objective.inner(own_batch("acl"))
    clean, worst = streams(objective)
    one = nt_xent(*projections(clean, *batch.views), temperature=0.5)
    other = nt_xent(*projections(worst, *worst_views(batch)), temperature=0.5)
    both: Any = 0.7 * one + 0.3 * other
    both.backward()
    objective(batch)["loss"].backward()
    trained = nn.Sequential(objective.encoder, objective.projector)
    for key, parameter in trained.named_parameters():
        wanted = gradient_apart(kept, key, clean, worst)
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-4, atol=1e-6)
    for kind, stream in (("clean", clean), ("adversarial", worst)):
        after = network(objective, kind).state_dict()
        for key, value in stream.state_dict().items():
            torch.testing.assert_close(after[key], value, rtol=1e-5, atol=1e-6)


def gradient_apart(kept: str, key: str, clean: nn.Module, worst: nn.Module) -> Tensor:
    """Of a parameter of the network that is kept: from both streams, but a batch norm's
    from its own alone."""
    streams = [clean, worst]
    if kept == "shared":
        streams = [clean]
    elif isinstance(clean.get_submodule(key.rpartition(".")[0]), _BatchNorm):
        streams = [clean if kept == "clean" else worst]
    found = [cast(Tensor, stream.get_parameter(key).grad) for stream in streams]
    return torch.stack(found).sum(0)


@KEPT
def test_each_step_goes_up_the_loss_of_both_views_together(kept: str) -> None:
    """The ascent written out, network in eval mode, attacked images' batch norms."""
    objective = contrasted(batch_norm=kept)
    given = own_batch("acl")
    attacked = network(objective, "adversarial").eval()
    views = [
        Linf(EPS).start(view, seed=0, key=("acl", 7, number), index=given.index)
        for number, view in enumerate(given.views)
    ]
    for _ in range(3):
        views = [view.detach().requires_grad_() for view in views]
        loss = nt_xent(*projections(attacked, *views), temperature=0.5)
        views = [
            (view.detach() + 0.25 * EPS * gradient.sign())
            .clamp(clean - EPS, clean + EPS)
            .clamp(0, 1)
            for view, gradient, clean in zip(
                views, torch.autograd.grad(loss, views), given.views, strict=True
            )
        ]
    for found, wanted in zip(worst_views(objective.inner(given)), views, strict=True):
        # A sign may flip where a gradient is next to nothing.
        assert float(((found - wanted).abs() < 1e-6).float().mean()) > 0.99


@pytest.mark.parametrize("ball", [Linf(EPS), L2(0.5), Linf(0.0)])
def test_attacked_views_stay_in_the_ball(ball: Ball) -> None:
    given = own_batch("acl")
    found = worst_views(contrasted(ball=ball).inner(given))
    for view, clean in zip(found, given.views, strict=True):
        assert not view.requires_grad
        assert float(ball.distance(view, clean).max()) <= ball.eps * (1 + 1e-5)
        assert 0 <= float(view.min()) <= float(view.max()) <= 1


def test_the_attack_raises_its_streams_loss() -> None:
    objective = contrasted()
    for step in range(3):
        given = replace(own_batch("acl"), step=step)
        attacked = network(objective, "adversarial").eval()
        with torch.no_grad():
            found, clean = (
                nt_xent(*projections(attacked, *views), temperature=0.5)
                for views in (worst_views(objective.inner(given)), given.views)
            )
        assert float(found) > float(clean) + 0.01


def test_draws_differ_from_step_to_step_and_between_the_views() -> None:
    objective = contrasted(steps=1)
    given = own_batch("acl")
    same = replace(given, views=(given.views[0], given.views[0]))
    first, again = (worst_views(objective.inner(same)) for _ in range(2))
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], first[1])
    later = worst_views(objective.inner(replace(same, step=8)))
    assert not torch.equal(first[0], later[0])


@KEPT
def test_the_attack_leaves_no_trace(kept: str) -> None:
    objective = contrasted(batch_norm=kept)
    next(objective.encoder.children()).eval()
    modes = [m.training for m in objective.modules()]
    state = {k: v.clone() for k, v in objective.state_dict().items()}
    objective.inner(own_batch("acl"))
    assert [m.training for m in objective.modules()] == modes
    assert all(p.requires_grad and p.grad is None for p in objective.parameters())
    for key, value in objective.state_dict().items():
        assert torch.equal(value, state[key]), key


@pytest.mark.parametrize("kept", ["adversarial", "clean"])
def test_the_encoder_that_is_kept_is_an_ordinary_one(kept: str) -> None:
    objective = contrasted(batch_norm=kept)
    objective(objective.inner(own_batch("acl")))["loss"].backward()
    plain = small_encoder(1)
    plain.load_state_dict(objective.trained().state_dict())
    x = own_batch("acl").images
    wanted = network(objective, kept)[0].eval()(x)
    torch.testing.assert_close(plain.eval()(x), wanted)
    other = network(objective, "clean" if kept == "adversarial" else "adversarial")
    assert not torch.allclose(other[0].eval()(x), wanted)
    assert any(key.startswith("branches.1.") for key in objective.state_dict())


def test_without_attacked_images_it_is_simclr() -> None:
    objective = acl(small_encoder(1), sync_bn=True, weight=0.0)
    torch.manual_seed(2)
    head = partial(NormedProjector, hidden=16, out=8, layers=3, sync_bn=True)
    plain = SimCLR(encoder=small_encoder(1), projector=head, temperature=0.5)
    plain.load_state_dict(objective.state_dict())
    batch = own_batch("acl")
    assert objective.inner(batch) is batch
    found, wanted = objective(batch), plain(batch)
    assert found.keys() == {"loss", "clean_loss", "view_similarity"}
    assert torch.equal(found["loss"], wanted["loss"])
    found["loss"].backward()
    wanted["loss"].backward()
    for one, other in zip(objective.parameters(), plain.parameters(), strict=True):
        assert torch.equal(cast(Tensor, one.grad), cast(Tensor, other.grad))


def test_a_head_without_batch_norm_is_common_to_both_streams() -> None:
    objective = contrasted(projector=partial(PlainProjector, hidden=16, out=8))
    assert len(objective.branches) == 1
    objective(objective.inner(own_batch("acl")))["loss"].backward()
    assert all(p.grad is not None for p in objective.parameters())


def test_an_encoder_without_batch_norm_has_one_stream_of_them() -> None:
    encoder: Encoder = without_batch_norm(1)
    with pytest.raises(UserError) as told:
        acl(encoder, sync_bn=True, batch_norm="adversarial")
    assert str(told.value) == (
        "two sets of batch norms are asked for, and the model has no batch norm; "
        "set objective.batch_norm=shared"
    )
    assert not acl(encoder, sync_bn=True, batch_norm="shared").branches


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight": 1.5}, "objective.weight=1.5 is the share of attacked images in "),
        ({"weight": -0.1}, "objective.weight=-0.1 is the share of attacked images"),
        ({"batch_norm": "two"}, "objective.batch_norm=two; choose adversarial|clean|"),
        ({"weight": 1, "batch_norm": "clean"}, "objective.weight=1 trains on attacked"),
        ({"temperature": 0.0}, "objective.temperature=0.0; set more than 0"),
        ({"steps": 0}, "the inner attack has steps=0; set at least 1"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_line(
    options: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as told:
        contrasted(**options)
    assert str(told.value).startswith(message)
    assert "\n" not in str(told.value)


def test_the_experiment_has_the_authors_settings() -> None:
    config = compose("run", "experiment=acl_cifar10")
    simclr, dual = config["arms"]["simclr"], config["arms"]["acl"]
    for part in ("views", "optim", "train"):
        assert simclr[part] == dual[part]
    assert simclr["objective"]["projector"] == dual["objective"]["projector"]
    step = dual["objective"]["relative_step"] * config["ball"]["eps"]
    assert step == pytest.approx(2 / 255)
    optim, train = dual["optim"], dual["train"]
    assert optim["schedule"]["warmup"] * train["epochs"] == pytest.approx(10)
    assert optim["lr"] * optim["schedule"]["end"] == pytest.approx(1e-6)
