"""What the training loop knows of a method."""

from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from rrl_dist.core.batch import Batch


class Objective(nn.Module):
    """A method: it owns encoder, heads and inner attack, and returns its loss.

    Subclasses define `forward`, and override the other two where the method has an
    inner maximization or state of its own. No method is overridden twice.

    Attributes:
        encoder: what is trained and kept.
        views: how many of each image it reads; stages that draw another number of them
            are refused before anything is trained.
        needs_labels: whether it trains on labels.
        reads_weights: whether `after_step` reads weights; it is then called where they
            are whole.
        moves_weights: whether `after_step` moves frozen parameters, such as a slow
            copy's; it is then called where weights are whole. Trained ones are the
            optimizer's, which may hold copies of them.
        has_distribution: whether it has `distribution`.
        reads_features: whether its views may be features [N, D] in place of images,
            where its encoder is frozen.
    """

    encoder: nn.Module
    views = 2
    needs_labels = False
    reads_weights = False
    moves_weights = False
    has_distribution = False
    reads_features = False

    def inner(self, batch: Batch) -> Batch:
        """The inner maximization, on the raw module: adds to `batch.extras`.

        It differentiates with respect to the input only, leaves no parameter gradient
        and every buffer and mode as they were, and takes as many steps on one worker
        as on another.
        """
        return batch

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """ "loss", a scalar to minimize, and named detached terms to log.

        Called through the strategy's wrapped module, once per optimizer step. All
        terms are global, the same on every worker; the mean over workers of the
        parameters' gradients is the gradient of the global loss.
        """
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def distribution(self, h: Tensor, *, anchors: int, temperature: float) -> Tensor:
        """Logits of images' distributions over classes, or over other images: what
        methods of consistency keep alike.

        Args:
            h: [M, D], features of this worker's images.
            anchors: the first so many rows are of images that others may be compared
                with; as many on every worker.
            temperature: similarities of images are divided by it; logits of classes
                are not.

        Returns:
            [M, K] float32 with gradient, of the same K things on every worker.
        """
        raise NotImplementedError(f"{type(self).__name__} has no distribution")

    def check(self, workers: int) -> None:
        """Asked before so many workers start.

        Raises:
            UserError: the method cannot be trained on them.
        """

    def trained(self) -> nn.Module:
        """What is kept of it: the encoder, or a `Classifier` around it."""
        return self.encoder

    def after_step(self, progress: float) -> None:
        """After each optimizer step on all workers; `progress` in (0, 1] of the run."""


class Frozen:
    """A network that is used but not trained, such as a teacher.

    Deliberately not a module: held by an objective, it is part of neither its
    parameters, its state dict nor what a strategy wraps. Always in eval mode and
    without gradients to its weights.

    Args:
        module: the network; it is switched to eval mode and frozen in place.
        sha256: hash of its weights, which names it in checkpoints.
        projector: the head that it was trained with, or None; treated alike.
    """

    def __init__(
        self, module: nn.Module, *, sha256: str, projector: nn.Module | None = None
    ) -> None:
        self.module = module.eval().requires_grad_(False)
        self.sha256 = sha256
        self.projector = projector
        if projector is not None:
            projector.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] in [0, 1] -> features [N, D], without graph."""
        features: Tensor = self.module(x)
        return features

    def project(self, h: Tensor) -> Tensor:
        """Features [N, D], of this network or another -> [N, E] by the projector, with
        gradients to h."""
        assert self.projector is not None, "its user has checked"
        return cast(Tensor, self.projector(h))

    def to(self, device: torch.device) -> "Frozen":
        """Move the network in place."""
        self.module.to(device)
        if self.projector is not None:
            self.projector.to(device)
        return self


def report(loss: Tensor, terms: Mapping[str, Any]) -> dict[str, Tensor]:
    """The dict that `forward` returns: the loss with graph, the terms without."""
    return {"loss": loss, **{name: value.detach() for name, value in terms.items()}}


def name_of(objective: Objective) -> str:
    """What it is called in configurations, its file's name, such as "pgd_at"."""
    return type(objective).__module__.rpartition(".")[2]


def width_of(module: nn.Module, name: str) -> int:
    """A number of features that an encoder or a head says of itself, such as `out`."""
    return int(cast(int, getattr(module, name)))
