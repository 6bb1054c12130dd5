"""What attacks refuse, and what they bear."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from rrl_dist.attacks import APGD, L2, PGD, Attack, FeatureAttack, Linf, Search
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


@every_kind
@pytest.mark.parametrize("big", [1e30, torch.inf])
def test_overflowing_logits_give_images(kind: str, big: float) -> None:
    model = Answer(lambda z: torch.cat([z[:, :1] * big, z[:, 1:]], 1))
    x_adv = make(kind, L2(0.3))(model, X, Y)
    assert x_adv.isfinite().all()
    assert (L2(0.3).distance(x_adv, X) <= 0.3 * (1 + 1e-6)).all()


def test_the_attack_on_features_wants_an_encoder() -> None:
    with pytest.raises(UserError, match="Linear has no encoder"):
        make("feature", Linf(0.1))(nn.Linear(8, 3), X, Y)
