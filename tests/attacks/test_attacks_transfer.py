"""Images made on one model and shown to another, and MI-FGSM, which makes them."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from torch import Tensor, nn

from rrl_dist.attacks import APGD, PGD, Attack, Ball, Linf
from rrl_dist.attacks.momentum import MIFGSM, of_length_one
from rrl_dist.attacks.transfer import MI_FGSM, Transfer, TransferMatrix
from rrl_dist.attacks.transfer import transfer_matrix as matrix_of
from rrl_dist.core.errors import UserError
from rrl_dist.core.randomness import uniform
from tests.attacks.conftest import Network, conv_net
from tests.attacks.kinds import Data, every_ball

SIZE = 16
BALL = Linf(0.1)
CONFIG = Path(__file__).parents[2] / "configs" / "attack" / "mi_fgsm.yaml"
Models = dict[str, nn.Module]


class Scaled(nn.Module):
    """At 1e4 the cross-entropy of what is right is 0 in float32, and its gradient."""

    def __init__(self, model: nn.Module, scale: float) -> None:
        super().__init__()
        self.model, self.scale = model, scale

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return self.scale * logits


def mlp() -> Network:
    return Network(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


@pytest.fixture(scope="session")
def models(digits: Data) -> Models:
    """Two seeds of one architecture and one of another, trained on clean images."""
    images, labels = (column[:1500] for column in digits)
    trained: Models = {}
    for seed, name in enumerate(("one", "two", "mlp"), start=1):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = mlp() if name == "mlp" else conv_net()
            optimizer = torch.optim.Adam(model.parameters(), 3e-3)
            for rows in torch.randint(1500, (200, 64)):
                loss = F.cross_entropy(model(images[rows]), labels[rows])
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
        trained[name] = model.eval()
    return trained


def transfer(
    surrogate: nn.Module,
    ball: Ball = BALL,
    source: str = "other",
    attack: Callable[..., Attack] = MI_FGSM,
) -> Transfer:
    settings: dict[str, Any] = {"ball": ball, "seed": 0, "micro_batch": SIZE}
    return Transfer(surrogate=surrogate, source=source, attack=attack, **settings)


def mi_fgsm(ball: Ball, **changes: Any) -> MIFGSM:
    settings = {"steps": 4, "relative_step": 0.9, "decay": 0.8, "random_start": True}
    return MIFGSM(ball=ball, seed=7, micro_batch=SIZE, **{**settings, **changes})


def wrong(model: nn.Module, x: Tensor, y: Tensor) -> bool:
    """Of one sample [1, ...], by a call of the attacks' shape."""
    return bool(model(x.expand(SIZE, *x.shape[1:]))[0].argmax() != y)


def test_matrix_equals_a_loop_over_pairs_and_samples(
    models: Models, unseen: Data
) -> None:
    x, y = (column[:12] for column in unseen)
    y[:2] = (y[:2] + 1) % 10  # which none gets right
    index, draws = torch.arange(12) * 3 + 5, partial(MI_FGSM, random_start=True)
    made = partial(matrix_of, models, x, y, ball=BALL, attack=draws, index=index)
    matrix, *others = [made(batch_size=size) for size in (1, 7, 64)]
    assert all(torch.equal(matrix.robust, other.robust) for other in others)
    for row, source in enumerate(models.values()):
        attack = transfer(source, attack=draws)
        for column, target in enumerate(models.values()):
            for i in torch.arange(12).split(1):
                x_adv = attack(target, x[i], y[i], index[i])
                assert matrix.clean[column, i] != wrong(target, x[i], y[i])
                assert matrix.robust[row, column, i] != wrong(target, x_adv, y[i])


@every_ball
def test_a_white_box_is_the_worst_source_of_every_target(
    ball: Ball, models: Models, unseen: Data
) -> None:
    matrix = matrix_of(models, *unseen, ball=ball)
    for target in models:
        own = matrix.accuracy[target][target].value
        for source in set(models) - {target}:
            away = matrix.accuracy[source][target].value
            assert own < away - 0.05
            assert away < matrix.clean_accuracy[target].value - 0.05


def test_going_on_after_success_transfers_further(models: Models, unseen: Data) -> None:
    stops = partial(APGD, loss="ce", steps=10, restarts=1, targets=1)
    away = ~torch.eye(3, dtype=torch.bool)
    accuracy, of_stopped = (
        matrix_of(models, *unseen, ball=BALL, attack=attack).robust[away].float().mean()
        for attack in (MI_FGSM, stops)
    )
    assert accuracy < of_stopped - 0.02


def test_hidden_gradients_do_not_help_against_others_images(
    models: Models, unseen: Data
) -> None:
    hiding = {**models, "masked": Scaled(models["one"], 1e4)}
    matrix = matrix_of(hiding, *unseen, ball=BALL)
    own = matrix.accuracy["masked"]["masked"].value
    assert own > matrix.clean_accuracy["masked"].value - 0.02
    for source in ("two", "mlp"):
        assert matrix.accuracy[source]["masked"].value < own - 0.1


def test_numbers_are_those_of_the_flags() -> None:
    clean = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]]).bool()
    robust = torch.tensor([[[0, 0, 1, 0], [1, 0, 0, 0]], [[1, 1, 1, 0], [0, 0, 0, 0]]])
    matrix = TransferMatrix(("a", "b"), clean, robust.bool())
    shares = {s: {t: p.value for t, p in r.items()} for s, r in matrix.accuracy.items()}
    assert shares == {"a": {"a": 0.25, "b": 0.25}, "b": {"a": 0.75, "b": 0}}
    assert [p.value for p in matrix.clean_accuracy.values()] == [0.75, 0.5]
    success = matrix.success_on_common  # of the first two images
    assert (success["a"]["a"].value, success["a"]["b"].value) == (1, 0.5)
    assert (success["b"]["a"].value, success["b"]["a"].count) == (0, 2)
    none = TransferMatrix(("a", "b"), clean & False, robust.bool())
    with pytest.raises(UserError, match="no image is right under all of a, b"):
        none.success_on_common  # noqa: B018


def test_the_target_decides_what_is_attacked(models: Models, unseen: Data) -> None:
    x, y = unseen
    one, other = models["one"], models["mlp"]
    attack, right = transfer(other), one(x).argmax(1) == y
    made = attack(one, x, y)
    assert torch.equal(made[~right], x[~right])
    assert torch.equal(made[right], attack.attack(other, x, y)[right])
    only_target = right & (other(x).argmax(1) != y)
    assert only_target.sum() >= 5
    loss = partial(F.cross_entropy, reduction="none")
    x_adv, x, y = made[only_target], x[only_target], y[only_target]
    assert (loss(other(x_adv), y) > loss(other(x), y) + 0.5).all()


@every_ball
def test_images_do_not_depend_on_batch_or_order(
    ball: Ball, models: Models, unseen: Data
) -> None:
    x, y = (column[:90] for column in unseen)
    attack, target = transfer(models["mlp"], ball), models["one"]
    whole = attack(target, x, y)
    order = torch.randperm(90, generator=torch.Generator().manual_seed(0))
    assert torch.equal(attack(target, x[order], y[order], order), whole[order])
    for size in (1, 7, 64):
        parts = torch.arange(90)[: 20 * size].split(size)
        made = [attack(target, x[rows], y[rows], rows) for rows in parts]
        assert torch.equal(torch.cat(made), whole[: 20 * size])


@every_ball
def test_images_are_in_the_ball_and_queries_the_targets(
    ball: Ball, models: Models, unseen: Data
) -> None:
    x, y = (column[:SIZE] for column in unseen)
    target, calls = copy.deepcopy(models["one"]), []
    target.register_forward_hook(lambda *_: calls.append(1))
    found = transfer(models["mlp"], ball).run(target, x, y)
    assert found.queries.tolist() == [len(calls)] * SIZE
    assert (ball.distance(found.x_adv, x) <= ball.eps * (1 + 1e-6)).all()
    assert 0 <= found.x_adv.min() <= found.x_adv.max() <= 1
    assert torch.equal(transfer(target, ball.with_eps(0.0))(target, x, y), x)
    assert transfer(target, ball).run(target, x[:0], y[:0]).queries.shape == (0,)


def test_both_models_are_given_back_as_they_were(models: Models, unseen: Data) -> None:
    x, y = (column[:30] for column in unseen)
    expected = transfer(models["two"])(models["one"], x, y)
    pair = [copy.deepcopy(models[name]).train() for name in ("one", "two")]
    states = [copy.deepcopy(model.state_dict()) for model in pair]
    assert torch.equal(transfer(pair[1])(pair[0], x, y), expected)
    matrix_of({"one": pair[0], "two": pair[1]}, x, y, ball=BALL)
    for model, state in zip(pair, states, strict=True):
        assert all(module.training for module in model.modules())
        assert all(p.requires_grad and p.grad is None for p in model.parameters())
        torch.testing.assert_close(model.state_dict(), state, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda m: {}, "0 models and 30 images"),
        (lambda m: {**m, " ": m["one"]}, "named ' '"),
        (lambda m: {**m, "few": m["one"][:-1]}, "few has 256 classes and .* 10; give"),
        (lambda m: {**m, "far": mlp().to("meta")}, "far: .* on meta .* on cpu"),
        (lambda m: {**m, "nan": Scaled(m["one"], torch.nan)}, "nan: .* NaN"),
    ],
)
def test_unusable_models_are_named(
    change: Callable[[Models], Models], found: str, models: Models, unseen: Data
) -> None:
    x, y = (column[:30] for column in unseen)
    with pytest.raises(UserError, match=found):
        matrix_of(change(models), x, y, ball=BALL)
    for name, other in change(models).items():
        if name not in models:
            with pytest.raises(UserError, match=found):
                transfer(other, source=name)(models["one"], x, y)
    with pytest.raises(UserError, match="3 models and 0 images"):
        matrix_of(models, x[:0], y[:0], ball=BALL)
    with pytest.raises(UserError, match="label 10 with a model of 10"):
        matrix_of(models, x, y * 0 + 10, ball=BALL)


def literal_mi_fgsm(model: nn.Module, ball: Ball, x: Tensor, y: int, i: int) -> Tensor:
    """One sample [1, ...], everything kept and sorted; the start is `Ball.start`'s."""
    labels = torch.full((SIZE,), y)
    point = ball.start(x, seed=7, key=("mi-fgsm4",), index=torch.tensor([i]))
    visited, momentum = [x, point], torch.zeros_like(x)

    def loss(point: Tensor) -> Tensor:
        logits = model(point.expand(SIZE, *point.shape[1:]))
        return F.cross_entropy(logits, labels, reduction="none")[0]

    for _ in range(4):
        point = point.clone().requires_grad_()
        (grad,) = torch.autograd.grad(loss(point), point)
        momentum = 0.8 * momentum + grad / grad.abs().sum()
        linf = isinstance(ball, Linf)
        unit = momentum.sign() if linf else momentum / momentum.norm()
        delta = point.detach() + 0.9 * ball.eps * unit - x
        shorter = delta * (ball.eps / delta.norm()).clamp_max(1)
        delta = delta.clamp(-ball.eps, ball.eps) if linf else shorter
        point = (x + delta).clamp(0, 1)
        visited.append(point)
    return max(visited, key=lambda p: (wrong(model, p, labels[0]), loss(p).item()))


@every_ball
def test_mi_fgsm_equals_a_literal_loop(
    ball: Ball, models: Models, unseen: Data
) -> None:
    x, y = (column[:24] for column in unseen)
    x_adv = mi_fgsm(ball)(models["two"], x, y, torch.arange(24) * 3 + 5)
    for i in range(24):
        expected = literal_mi_fgsm(models["two"], ball, x[[i]], int(y[i]), 3 * i + 5)
        torch.testing.assert_close(x_adv[[i]], expected, rtol=0, atol=2e-5)


def test_mi_fgsm_without_momentum_is_pgd(models: Models, unseen: Data) -> None:
    ours = mi_fgsm(BALL, decay=0.0, random_start=False)
    steps = partial(PGD, steps=4, relative_step=0.9, random_start=False, restarts=1)
    pgd = steps(ball=BALL, seed=7, micro_batch=SIZE)
    assert torch.equal(ours(models["one"], *unseen), pgd(models["one"], *unseen))


def test_gradients_of_any_size_count_alike() -> None:
    grad = uniform(0, "grad", index=torch.arange(2), n=5) - 0.5
    unit = grad / grad.abs().sum(1, keepdim=True)
    for size in (1e-36, 1.0, 1e36):
        torch.testing.assert_close(of_length_one(size * grad), unit)
    smallest = torch.tensor([[1e-45, 0.0], [0.0, 0.0], [torch.nan, -2.0]])
    expected = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, -1.0]])
    assert torch.equal(of_length_one(smallest), expected)


@pytest.mark.parametrize(
    ("key", "value"),
    [("steps", 0), ("relative_step", 0.0), ("decay", -0.1), ("decay", torch.nan)],
)
def test_impossible_settings_are_refused(key: str, value: float) -> None:
    with pytest.raises(UserError, match=f"{key}={value}"):
        mi_fgsm(BALL, **{key: value})


def test_default_is_that_of_the_configuration() -> None:
    config = dict(OmegaConf.load(CONFIG))
    assert config.pop("_target_") == f"{MIFGSM.__module__}.MIFGSM"
    assert config == MI_FGSM.keywords
    assert transfer(nn.Identity()).name == "mi-fgsm10-from-other"
