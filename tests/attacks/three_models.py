"""Three networks that attacks must judge alike, for tests beside other codes.

The adversarially trained one is `trained` of `conftest.py`; the others are made here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrl_dist.attacks import L1, L2, Ball, Linf
from tests.attacks.conftest import conv_net

# A network, and a ball in which AutoAttack leaves 45 to 70 % of its images right.
CASES: list[tuple[str, Ball]] = [
    ("undefended", Linf(0.1)),
    ("adversarial", Linf(0.1)),
    ("adversarial", L2(0.5)),
    ("adversarial", L1(1.0)),
    ("saturated", Linf(0.1)),
]
NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}


class Case(NamedTuple):
    """What is attacked.

    Attributes:
        model: [N, 1, 8, 8] -> [N, 10], in eval mode.
        ball: the threat model.
        x: [N, 1, 8, 8] images.
        y: [N] labels.
    """

    model: nn.Module
    ball: Ball
    x: Tensor
    y: Tensor


class Saturated(nn.Module):
    """The same answers with logits so large that softmax is one class in float32.

    The cross-entropy of what it gets right is then 0, with a gradient of exactly 0. A
    loss that does not depend on the logits' scale sees no difference.
    """

    def __init__(self, model: nn.Module, scale: float = 1e4) -> None:
        super().__init__()
        self.model, self.scale = model, scale

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)
        return self.scale * logits


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """For codes that draw from torch's global generator; it is put back."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def undefended(images: Tensor, labels: Tensor) -> nn.Module:
    """Trained on clean images alone."""
    with seeded(1):
        model = conv_net()
        optimizer = torch.optim.Adam(model.parameters(), 3e-3)
        for _ in range(12):
            for rows in torch.randperm(len(images)).split(64):
                loss = F.cross_entropy(model(images[rows]), labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    optimizer.zero_grad()
    return model.eval()
