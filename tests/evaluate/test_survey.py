import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rrl_dist.evaluate.survey import effective_rank, feature_std, of_weights, spread
from rrl_dist.models.encoder import Classifier


def random(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=40)
@given(rows=st.integers(2, 30), columns=st.integers(1, 12), seed=st.integers(0, 1000))
def test_measures_are_their_definitions(rows: int, columns: int, seed: int) -> None:
    h = random(rows, columns, seed)
    table = h.double().numpy()
    centered = table - table.mean(0)
    values = np.linalg.svd(centered, compute_uv=False)
    share = values[values > 0] / values.sum()
    rank = math.exp(-(share * np.log(share)).sum())
    assert effective_rank(h) == pytest.approx(rank, rel=1e-6)
    assert 1 <= effective_rank(h) <= min(rows - 1, columns) * (1 + 1e-6)
    lengths = [float(row @ row) for row in centered]
    assert spread(h) == pytest.approx(math.sqrt(sum(lengths) / rows))
    unit = table / np.linalg.norm(table, axis=1, keepdims=True)
    assert feature_std(h) == pytest.approx(unit.std(0).mean())


def test_the_effective_rank_counts_directions() -> None:
    corners = torch.cat([torch.eye(5), -torch.eye(5)])
    assert effective_rank(corners) == pytest.approx(5)
    assert effective_rank(corners + 3) == pytest.approx(5)
    line = torch.linspace(0, 1, 20)[:, None] * random(1, 8)
    assert effective_rank(line) == pytest.approx(1, abs=1e-5)
    assert effective_rank(100 * random(50, 8)) == pytest.approx(
        effective_rank(random(50, 8)), rel=1e-5
    )


def test_a_collapsed_encoder_is_seen() -> None:
    point = random(1, 16).expand(40, 16)
    assert (effective_rank(point), feature_std(point)) == (0.0, pytest.approx(0))
    assert spread(point) == pytest.approx(0, abs=1e-12)
    healthy, nearly = random(400, 16), point.repeat(10, 1) + 0.01 * random(400, 16)
    assert feature_std(healthy) == pytest.approx(1 / math.sqrt(16), rel=0.1)
    assert feature_std(nearly) < 0.02
    assert effective_rank(random(1, 4)) == 0.0


class Own(nn.Module):
    """A layer whose linear map is nobody's business but its own."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.eye(12))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.matrix


def test_a_layer_of_unknown_kind_leaves_no_sigma() -> None:
    head = nn.Linear(12, 3)
    found = of_weights(Classifier(Own(), head), 2)
    assert found["sigmas"] is None
    assert found["head_norm"] == pytest.approx(
        float(torch.linalg.matrix_norm(head.weight, 2).detach())
    )


def test_sigmas_are_those_of_the_encoders_layers() -> None:
    encoder = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(16, 5))
    found = of_weights(Classifier(encoder, nn.Linear(5, 2)), 2)["sigmas"]
    # A convolution of one pixel is its matrix, at every pixel.
    matrices = encoder[0].weight.flatten(1), encoder[2].weight
    expected = [float(torch.linalg.matrix_norm(m, 2).detach()) for m in matrices]
    assert list(found) == ["0", "2"]
    assert list(found.values()) == pytest.approx(expected, rel=1e-4)
