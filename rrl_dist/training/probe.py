"""Probes of an encoder while it trains: kNN, a linear head, and that head under attack.

They read the training and the validation split, never the test split, and they look at
the encoder in eval mode without changing it.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrl_dist.attacks.projected_gradient import PGD
from rrl_dist.core.aggregate import Proportion, wilson
from rrl_dist.core.modes import evaluating
from rrl_dist.core.randomness import stream
from rrl_dist.data.datasets import ImageSet
from rrl_dist.data.memory_loader import read_images
from rrl_dist.models.encoder import Classifier


@torch.no_grad()
def features(
    encoder: nn.Module, images: Tensor, *, device: torch.device, batch_size: int = 256
) -> Tensor:
    """[N, 3, H, W] uint8 -> [N, D] float32 on the device; the encoder in eval mode."""
    with evaluating(encoder):
        parts = [
            encoder(part.to(device).float() / 255).float()
            for part in torch.split(images, batch_size)
        ]
    return torch.cat(parts)


def knn_predict(
    bank: Tensor, labels: Tensor, queries: Tensor, *, k: int, temperature: float
) -> Tensor:
    """Weighted nearest neighbours by cosine (Wu et al. 2018, arXiv:1805.01978, 3.4).

    Args:
        bank, labels: [M, D] features and [M] classes.
        queries: [N, D].
        k: neighbours; fewer where the bank is smaller.
        temperature: of the weights exp(cos / temperature).

    Returns:
        [N] classes.
    """
    similarity = F.normalize(queries, dim=1) @ F.normalize(bank, dim=1).T
    nearest, where = similarity.topk(min(k, len(bank)), dim=1)
    votes = torch.zeros(len(queries), int(labels.max()) + 1, device=bank.device)
    votes.scatter_add_(1, labels[where], (nearest / temperature).exp())
    return votes.argmax(1)


def fit_linear(
    h: Tensor, labels: Tensor, *, num_classes: int, decay: float
) -> nn.Linear:
    """Multinomial logistic regression by L-BFGS on standardized features.

    Args:
        h, labels: [N, D] features and [N] classes.
        num_classes: outputs.
        decay: weight of the squared L2 norm of the standardized head.

    Returns:
        a frozen head on the features as they are (standardization folded in).
    """
    mean, std = h.mean(0), h.std(0, correction=0).clamp_min(1e-6)
    x = (h - mean) / std
    weight = torch.zeros(num_classes, h.shape[1], device=h.device, requires_grad=True)
    bias = torch.zeros(num_classes, device=h.device, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=100, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(F.linear(x, weight, bias), labels)
        loss = loss + decay * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    head = nn.Linear(h.shape[1], num_classes, device=h.device).requires_grad_(False)
    head.weight.copy_(weight.detach() / std)
    head.bias.copy_(bias.detach() - (weight.detach() / std) @ mean)
    return head


def fixed_subset(images: ImageSet, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The same `count` samples each time: images uint8 [n, 3, H, W], labels, index."""
    # Not sorted: folders are sorted by class, and some take the first of these only.
    positions = stream(0, "probe").permutation(len(images))[:count]
    chosen = images.select(positions)
    read = read_images(chosen, np.arange(len(positions)))
    labels, index = torch.as_tensor(chosen.labels), torch.as_tensor(chosen.index)
    return read, labels, index


class Probe:
    """kNN, linear and robust linear accuracy of an encoder, on validation images.

    Args:
        train, val: labelled splits.
        num_classes: of both.
        attack: PGD of the robust probe.
        bank_images: training images that the kNN bank and the head are made of.
        val_images: validation images for the clean probes.
        robust_images: of those, the ones that are attacked.
        k, temperature: of the kNN.
        decay: of the linear head.
    """

    def __init__(
        self,
        *,
        train: ImageSet,
        val: ImageSet,
        num_classes: int,
        attack: PGD,
        bank_images: int,
        val_images: int,
        robust_images: int,
        k: int,
        temperature: float,
        decay: float,
    ) -> None:
        self.bank, self.bank_labels, _ = fixed_subset(train, bank_images)
        self.val, self.labels, self.index = fixed_subset(val, val_images)
        self.num_classes, self.attack = num_classes, attack
        self.robust_images = min(robust_images, len(self.val))
        self.k, self.temperature, self.decay = k, temperature, decay

    def __call__(self, encoder: nn.Module, device: torch.device) -> dict[str, Any]:
        """Accuracies in [0, 1]; the robust one with its 95 % interval."""
        h = features(encoder, self.bank, device=device)
        h_val = features(encoder, self.val, device=device)
        known, labels = self.bank_labels.to(device), self.labels.to(device)
        knn = knn_predict(h, known, h_val, k=self.k, temperature=self.temperature)
        head = fit_linear(h, known, num_classes=self.num_classes, decay=self.decay)
        robust = self._robust(Classifier(encoder, head), device)
        return {
            "knn_acc": float((knn == labels).float().mean()),
            "linear_acc": float((head(h_val).argmax(1) == labels).float().mean()),
            "robust_acc": robust.value,
            "robust_low": robust.low,
            "robust_high": robust.high,
            "robust_count": robust.count,
            "feature_std": float(F.normalize(h_val, dim=1).std(0).mean()),
        }

    def _robust(self, model: nn.Module, device: torch.device) -> Proportion:
        n = self.robust_images
        x = self.val[:n].to(device).float() / 255
        y, index = self.labels[:n].to(device), self.index[:n].to(device)
        x_adv = self.attack(model, x, y, index)
        with torch.no_grad(), evaluating(model):
            right = int((model(x_adv).argmax(1) == y).sum())
        return wilson(right, n)
