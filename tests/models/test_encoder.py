from itertools import pairwise

import pytest
import torch
from torch import nn

from rrl_dist.core.errors import UserError
from rrl_dist.models.backbones import SmallCNN
from rrl_dist.models.encoder import Classifier, Encoder
from rrl_dist.models.heads import Projector

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.25, 0.3]


def small_encoder() -> Encoder:
    return Encoder(backbone=SmallCNN(width=2), mean=MEAN, std=STD, sync_bn=False)


def test_normalization_is_inside() -> None:
    encoder = small_encoder().eval()
    x = torch.rand(4, 3, 8, 8)
    columns = [(x[:, c] - MEAN[c]) / STD[c] for c in range(3)]
    expected = encoder.backbone(torch.stack(columns, dim=1))
    torch.testing.assert_close(encoder(x), expected)
    assert encoder(x).shape == (4, encoder.num_features)


def test_mean_and_std_travel_with_the_weights() -> None:
    state = small_encoder().state_dict()
    torch.testing.assert_close(state["normalize.mean"].flatten(), torch.tensor(MEAN))
    torch.testing.assert_close(state["normalize.std"].flatten(), torch.tensor(STD))
    other = Encoder(
        backbone=SmallCNN(width=2), mean=[0.0] * 3, std=[1.0] * 3, sync_bn=False
    )
    other.load_state_dict(state, strict=True)
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(other.normalize(x), small_encoder().normalize(x))


def test_whole_numbers_are_numbers_too() -> None:
    """As YAML reads `std: [1, 1, 1]`; what is loaded over them must not be cut."""
    other = Encoder(
        backbone=SmallCNN(width=2), mean=[0] * 3, std=[1] * 3, sync_bn=False
    )
    assert other.state_dict()["normalize.std"].is_floating_point()
    other.load_state_dict(small_encoder().state_dict(), strict=True)
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(other.normalize(x), small_encoder().normalize(x))


def test_mean_and_std_are_not_trained() -> None:
    names = [name for name, _ in small_encoder().named_parameters()]
    assert names
    assert all(name.startswith("backbone.") for name in names)


@pytest.mark.parametrize(
    ("mean", "std"),
    [([0.5], [0.5]), (MEAN, [0.2, 0.2]), (MEAN, [0.2, 0.0, 0.2]), (MEAN, [1, -1, 1])],
)
def test_impossible_normalizations_are_refused(
    mean: list[float], std: list[float]
) -> None:
    with pytest.raises(UserError, match="3 means and 3 positive stds"):
        Encoder(backbone=SmallCNN(width=1), mean=mean, std=std, sync_bn=False)


def test_classifier_is_the_head_on_the_features() -> None:
    encoder, head = small_encoder().eval(), nn.Linear(8, 5)
    x = torch.rand(3, 3, 8, 8)
    expected = encoder(x) @ head.weight.T + head.bias
    torch.testing.assert_close(Classifier(encoder, head)(x), expected)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_projector_has_the_layers_asked_for(layers: int) -> None:
    head = Projector(6, hidden=5, out=4, layers=layers, sync_bn=False)
    linear = [m for m in head.modules() if isinstance(m, nn.Linear)]
    widths = [6, *[5] * (layers - 1), 4]
    found = [(m.in_features, m.out_features) for m in linear]
    assert found == list(pairwise(widths))
    assert [m.bias is not None for m in linear] == [False] * (layers - 1) + [True]
    for kind in (nn.BatchNorm1d, nn.ReLU):
        assert sum(isinstance(m, kind) for m in head.modules()) == layers - 1
    # The output itself is not rectified.
    with torch.no_grad():
        assert float(head(torch.randn(64, 6)).min()) < 0
