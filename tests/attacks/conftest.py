"""A small adversarially trained network and the images it has not seen."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

TRAINING_EPS = 0.1


class Network(nn.Sequential):
    """A head on an encoder: the last layer, and all before it."""

    @property
    def encoder(self) -> nn.Sequential:
        return self[:-1]


def conv_net() -> Network:
    """[N, 1, 8, 8] -> [N, 10]."""
    return Network(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


def one_step_attack(model: nn.Module, x: Tensor, y: Tensor, rand: Tensor) -> Tensor:
    """Written out here: the fixture must not need the code under test."""
    shift = TRAINING_EPS * (2 * rand - 1)
    x_adv = (x + shift).requires_grad_()
    (grad,) = torch.autograd.grad(F.cross_entropy(model(x_adv), y), x_adv)
    shift = (shift + TRAINING_EPS * grad.sign()).clamp(-TRAINING_EPS, TRAINING_EPS)
    return (x + shift).clamp(0, 1).detach()


@pytest.fixture(scope="session")
def digits() -> tuple[Tensor, Tensor]:
    """1,797 images [N, 1, 8, 8] in [0, 1] and their labels."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    return images, torch.tensor(data.target, dtype=torch.int64)


@pytest.fixture(scope="session")
def trained(digits: tuple[Tensor, Tensor]) -> nn.Sequential:
    images, labels = digits
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = conv_net()
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(12):
            for rows in torch.randperm(1500).split(64):
                x, y = images[rows], labels[rows]
                x_adv = one_step_attack(model, x, y, torch.rand_like(x))
                loss = F.cross_entropy(model(x_adv), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    optimizer.zero_grad()
    return model.eval()


@pytest.fixture
def model(trained: nn.Sequential) -> nn.Sequential:
    """The trained network, fresh for tests that change it."""
    fresh = conv_net()
    fresh.load_state_dict(trained.state_dict())
    return fresh.eval()


@pytest.fixture
def unseen(digits: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """256 images that the network was not trained on, and their labels."""
    images, labels = digits
    return images[1500:1756].clone(), labels[1500:1756].clone()
