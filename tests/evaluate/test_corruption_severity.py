"""Errors of trained networks on corrupted images rise with severity."""

import statistics
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from rrl_dist.data.corruptions import corrupt, corruption_names
from rrl_dist.training.build import build
from tests.attacks.test_attacks_fixture import ABOUT, network, read_about, read_images
from tests.composing import compose

KINDS = corruption_names("test")
# Whose severities change images in other ways, and on small images not always more.
UNEVEN = {"elastic_transform", "glass_blur"}


def trained() -> tuple[nn.Module, Tensor, Tensor]:
    """A small network on enlarged digits, and the test images."""
    source = build(compose("evaluate", "data=digits")["data"])

    def read(split: str) -> tuple[Tensor, Tensor]:
        images = source.split(split)
        x = torch.from_numpy(images.images).permute(0, 3, 1, 2).float() / 255
        return x, torch.from_numpy(images.labels)

    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(3, 16, 5, stride=2, padding=2), nn.ReLU()),
        *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(32 * 64, 10)),
    )
    (x, y), optimizer = read("train"), torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(5):
        for rows in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    x, y = read("test")
    return model.eval(), x[::3], y[::3]


def errors_of(model: nn.Module, x: Tensor, y: Tensor) -> dict[str, list[float]]:
    """By kind for testing, at severities 1 to 5."""
    index, found = torch.arange(len(x)), {}
    with torch.no_grad():
        for name in KINDS:
            found[name] = [
                float(
                    (model(corrupt(x, name, s, seed=0, index=index)).argmax(1) != y)
                    .double()
                    .mean()
                )
                for s in range(1, 6)
            ]
    return found


def check_rising(model: nn.Module, x: Tensor, y: Tensor, *, most: float) -> None:
    """Of the fifteen kinds together; and no kind is easier at 5 than at 1, but for
    those whose ways of change differ."""
    with torch.no_grad():
        clean = float((model(x).argmax(1) != y).double().mean())
    assert clean < most
    found = errors_of(model, x, y)
    means = [
        statistics.mean(errors[place] for errors in found.values())
        for place in range(5)
    ]
    assert all(a < b for a, b in pairwise([clean, *means]))
    assert {name for name, e in found.items() if e[4] < e[0] - 0.02} <= UNEVEN


def test_on_digits() -> None:
    check_rising(*trained(), most=0.08)


@pytest.mark.slow
@pytest.mark.skipif(
    not ABOUT.exists(), reason="no network of CIFAR-10 beside the checkout"
)
def test_on_cifar10() -> None:
    """A network that was trained adversarially, and 256 test images."""
    check_rising(network(), *read_images(read_about()), most=0.6)
