"""What attacks refuse, and what they bear."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rrl_dist.attacks import (
    APGD,
    L2,
    PGD,
    Attack,
    FeatureAttack,
    Linf,
    Search,
    autoattack,
    pgd,
    transfer_matrix,
)
from rrl_dist.attacks.passes import counted
from rrl_dist.core.errors import UserError

ATTACKS: dict[str, Callable[..., Attack]] = {
    "pgd": PGD,
    "apgd": APGD,
    "feature": FeatureAttack,
    "search": Search,
}
SETTINGS = {
    "pgd": {"relative_step": 0.25, "random_start": True, "restarts": 1},
    "apgd": {"loss": "ce", "restarts": 1, "targets": 1},
    "feature": {"relative_step": 0.25, "restarts": 1},
    "search": {"relative_start": 0.5, "change": 0.1},
}
every_kind = pytest.mark.parametrize("kind", sorted(ATTACKS))
with_labels = pytest.mark.parametrize("kind", ["apgd", "pgd", "search"])


def make(kind: str, ball: Linf | L2) -> Attack:
    common = {"steps": 5, "seed": 0, "micro_batch": 8}
    return ATTACKS[kind](ball=ball, **common, **SETTINGS[kind])


X = torch.full((3, 1, 8, 8), 0.5)
Y = torch.tensor([0, 1, 2])
NAN = X.clone()
NAN[1, 0, 0, 0] = torch.nan


@every_kind
@pytest.mark.parametrize(
    ("x", "y", "index", "found"),
    [
        ((X * 255).to(torch.uint8), Y, None, "uint8"),
        (X.double(), Y, None, "float64"),
        (NAN, Y, None, "NaN"),
        (X * 4, Y, None, "to 2"),
        (X - 1, Y, None, "-0.5"),
        (X, Y[:2], None, r"labels.*\(2,\) for 3"),
        (X, Y.float(), None, "labels.*float32"),
        (X, Y, Y[:2], "index"),
        (X, Y, Y.float(), "index"),
    ],
)
def test_unusable_input_is_named_in_one_line(
    kind: str, x: Tensor, y: Tensor, index: Tensor, found: str, model: nn.Module
) -> None:
    with pytest.raises(UserError, match=found) as caught:
        make(kind, Linf(0.1)).run(model, x, y, index)
    assert "\n" not in str(caught.value)


@with_labels
@pytest.mark.parametrize(
    ("y", "found"), [(Y + 8, "label 10 with a model of 10"), (Y - 1, "label -1")]
)
def test_a_label_without_a_logit_is_named(
    kind: str, y: Tensor, found: str, model: nn.Module
) -> None:
    with pytest.raises(UserError, match=found):
        make(kind, Linf(0.1)).run(model, X, y)


class Answer(nn.Module):
    """One linear layer whose outputs, features and logits alike, pass `change`."""

    def __init__(self, change: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 3)
        self.change = change

    @property
    def encoder(self) -> nn.Module:
        return self

    def forward(self, x: Tensor) -> object:
        return self.change(self.linear(x.flatten(1)))


@every_kind
@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda z: z * torch.nan, "NaN (logits|features)"),
        (lambda z: torch.zeros_like(z), "no gradient"),
        (lambda z: z[:, 0], "shape"),
        (lambda z: (z, z), "tuple"),
    ],
)
def test_unusable_model_is_named_and_given_back(
    kind: str, change: Callable[[Tensor], object], found: str
) -> None:
    model = Answer(change).train()
    with pytest.raises(UserError, match=found):
        make(kind, Linf(0.1))(model, X, Y * 0)
    assert model.linear.training
    assert model.linear.weight.requires_grad


@contextmanager
def warned(text: str | None) -> Iterator[None]:
    """In one line; or not at all."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    told = {str(warning.message) for warning in caught}
    assert len(told) == (text is not None)
    assert all(str(text) in line and "\n" not in line for line in told)


@every_kind
@pytest.mark.parametrize("big", [1e30, torch.inf])
def test_overflowing_logits_give_images(kind: str, big: float) -> None:
    model = Answer(lambda z: torch.cat([z[:, :1] * big, z[:, 1:]], 1))
    # The attack on features sees no logits.
    told = None if big < torch.inf or kind == "feature" else "infinite logits"
    with warned(told):
        x_adv = make(kind, L2(0.3))(model, X, Y)
    assert x_adv.isfinite().all()
    assert (L2(0.3).distance(x_adv, X) <= 0.3 * (1 + 1e-6)).all()


def test_the_attack_on_features_wants_an_encoder() -> None:
    with pytest.raises(UserError, match="Linear has no encoder"):
        make("feature", Linf(0.1))(nn.Linear(8, 3), X, Y)


CALLS: dict[str, Callable[..., Any]] = {"autoattack": autoattack, "pgd": pgd}
every_call = pytest.mark.parametrize("call", sorted(CALLS))


@every_call
def test_a_radius_without_a_norm_is_refused(call: str, model: nn.Module) -> None:
    with pytest.raises(UserError, match=r"ball=0\.03.* write it as Linf\(8 / 255\)"):
        CALLS[call](model, X, Y, ball=8 / 255)
    with pytest.raises(UserError, match="names no norm"):
        transfer_matrix({"one": model}, X, Y, ball=8 / 255)  # type: ignore[arg-type]


@every_call
def test_what_is_on_another_device_is_named(call: str, model: nn.Module) -> None:
    attack, ball = CALLS[call], Linf(0.1)
    with pytest.raises(UserError, match=r"labels: on meta, .* on cpu; move one"):
        attack(model, X, Y.to("meta"), ball=ball)
    with pytest.raises(UserError, match="index: on meta"):
        attack(model, X, Y, ball=ball, index=Y.to("meta"))
    with pytest.raises(UserError, match="the model is on meta and the images on cpu"):
        attack(model.to("meta"), X, Y, ball=ball)


@pytest.mark.parametrize("version", ["standard", "plus"])
def test_images_without_places_are_refused_before_they_are_attacked(
    version: str, model: nn.Module
) -> None:
    flat = nn.Sequential(nn.Unflatten(1, (1, 8, 8)), model).eval()
    with counted(flat) as passes, pytest.raises(UserError, match="square attacks"):
        autoattack(flat, X.flatten(1), Y, ball=Linf(0.1), version=version)
    assert passes.forward == 0


class Moody(nn.Module):
    """Answers otherwise while it is trained, without a layer of torch that does."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(x.flatten(1))
        return -logits if self.training else logits


@every_call
def test_any_module_in_train_mode_is_told_of(call: str) -> None:
    model = nn.Sequential(Moody())
    told = "the model is in train mode; the model is attacked in eval mode"
    with warned(told):
        CALLS[call](model, X, Y, ball=Linf(0.0))
    assert model[0].training
    model.eval()[0].train()
    with warned(told.replace("the model", "0", 1)):
        CALLS[call](model, X, Y, ball=Linf(0.0))
    with warned(None):
        CALLS[call](model.eval(), X, Y, ball=Linf(0.0))


def test_infinite_logits_of_a_clean_image_are_told_of() -> None:
    model = Answer(lambda z: torch.cat([z[:, :1] * 0 + torch.inf, z[:, 1:]], 1))
    with warned("infinite logits, where gradients may vanish"):
        autoattack(model.eval(), X, Y * 0, ball=Linf(0.1), version="rand")
