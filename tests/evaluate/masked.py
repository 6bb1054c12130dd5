"""Networks whose robustness is real, and the same with gradients that mislead attacks.

All take [N, 3, 8, 8] images of digits, grey as three equal channels, to [N, 10] logits.
"""

from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from rrl_dist.attacks import L2, Ball, Linf, ascend
from tests.attacks.conftest import conv_net
from tests.attacks.three_models import Saturated, seeded

TRAINED = 1500  # of 1,797 images
Data = tuple[Tensor, Tensor]


class Grey(nn.Module):
    """A network of one channel on images of three."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x.mean(1, keepdim=True))
        return logits


class Quantized(nn.Module):
    """Images in 8 levels: between them nothing changes, and no gradient is there."""

    def __init__(self, model: nn.Module, levels: int = 8) -> None:
        super().__init__()
        self.model, self.steps = model, levels - 1

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model((x * self.steps).round() / self.steps)
        return logits


class Noisy(nn.Module):
    """Noise of its own on every image, each time that it is asked."""

    def __init__(self, model: nn.Module, deviation: float = 0.1) -> None:
        super().__init__()
        self.model, self.deviation = model, deviation

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x + self.deviation * torch.randn_like(x))
        return logits


def dense_net() -> nn.Module:
    """[N, 1, 8, 8] -> [N, 10]; no convolution and no batch norm."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def smooth_net() -> nn.Module:
    """[N, 1, 8, 8] -> [N, 10], without a kink."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(16, 24, 3, stride=2, padding=1),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(384, 10),
    )


def adversarially_trained(
    make: Callable[[], nn.Module], ball: Ball, data: Data, *, seed: int, epochs: int
) -> nn.Module:
    """Madry et al. 2018, arXiv:1706.06083, with two steps, on [N, 1, 8, 8] images."""
    images, labels = (column[:TRAINED] for column in data)
    with seeded(seed):
        model = make()
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(epochs):
            for rows in torch.randperm(len(images)).split(64):
                x, y = images[rows], labels[rows]

                def value(x: Tensor, y: Tensor = y) -> Tensor:
                    return F.cross_entropy(model(x), y, reduction="none")

                step = 0.75 * ball.eps
                worst = ascend(value, x, x, ball=ball, steps=2, step_size=step)
                loss = value(worst).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    optimizer.zero_grad()
    return model.eval()


@cache
def digits() -> Data:
    """1,797 images [N, 1, 8, 8] in [0, 1] and their labels."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32)[:, None] / 16
    return images, torch.tensor(data.target, dtype=torch.int64)


def robust_networks(data: Data) -> dict[str, nn.Module]:
    """Three that are adversarially trained, by name."""
    makes: dict[str, tuple[Callable[[], nn.Module], Ball]] = {
        "convolutional, Linf": (conv_net, Linf(0.1)),
        "smooth, L2": (smooth_net, L2(0.6)),
        "dense, Linf": (dense_net, Linf(0.06)),
    }
    return {
        name: Grey(adversarially_trained(make, ball, data, seed=seed, epochs=5)).eval()
        for seed, (name, (make, ball)) in enumerate(makes.items())
    }


def masked_networks(model: nn.Module) -> dict[str, nn.Module]:
    """The same answers, or nearly, behind what hides gradients."""
    return {
        "saturated logits": Saturated(model).eval(),
        "8-level input": Quantized(model).eval(),
        "noise layer": Noisy(model).eval(),
    }


def held_out(data: Data, count: int) -> TensorDataset:
    """Images that no network has seen, [count, 3, 8, 8], and their labels."""
    x, y = (column[TRAINED : TRAINED + count] for column in data)
    return TensorDataset(x.expand(-1, 3, -1, -1).contiguous(), y)
