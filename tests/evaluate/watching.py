"""A run of `information.estimates`, with notes of all images that it works on."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from rrl_dist.attacks.balls import Linf
from rrl_dist.data.datasets import ImageSet
from rrl_dist.evaluate.estimation import Estimation
from rrl_dist.evaluate.information import SETTLING, estimates
from rrl_dist.models.critics import GlobalCritic, LocalCritic
from rrl_dist.objectives.mutual_information import estimate
from rrl_dist.training.build import build
from tests.composing import compose
from tests.evaluate.jobs import quick

EPS = 0.05
SIZE = 16  # images of a batch
WAY = quick(batch_size=SIZE, steps=6)
Critics = tuple[LocalCritic, GlobalCritic]


@cache
def grey(split: str) -> ImageSet:
    """Digits of 8 x 8 px so far from black and white that nothing is clipped."""
    batches = {"train": 2, "test": 4}[split]
    images = build(compose("pretrain", "data=digits", "data.size=8")["data"])
    found: ImageSet = images.split(split).select(np.arange(batches * SIZE))
    pixels = np.asarray(found.images) // 2 + 64
    return ImageSet("grey", pixels, found.labels, found.index, found.classes)


def pixels(images: ImageSet) -> Tensor:
    x = torch.from_numpy(np.asarray(images.images)).permute(0, 3, 1, 2)
    return x.contiguous().float() / 255


def clean(x: Tensor, images: ImageSet) -> Tensor:
    """The images of the set that x [N, 3, H, W] was made of: the nearest."""
    known = pixels(images)
    gaps = (x[:, None] - known).abs().flatten(2).amax(2)
    return known[gaps.argmin(1)]


@dataclass(frozen=True)
class Seen:
    """What the local critic was shown in one call."""

    x: Tensor
    training: bool
    differentiated: bool

    @property
    def of_attack(self) -> bool:
        return self.differentiated and not self.training


class Watched:
    """One run of `estimates`, on grey images.

    Args:
        encoder: is attacked, and left in eval mode.
        estimation: how.
        train: instead of all grey ones.
        silent: whether to silence the local critic before its first call.

    Attributes:
        told: what it gave back.
        attacks: the iterates of each attack but the last: of fitting, of settling, and
            of each batch that is asked about.
        learned: the batches of fitting and settling, on which critics are in train
            mode.
        begun, ended: the critics before the first step and at the end.
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        estimation: Estimation = WAY,
        train: ImageSet | None = None,
        silent: bool = False,
    ) -> None:
        self.encoder = encoder
        self._local: list[Seen] = []
        self._encoder: list[Tensor] = []
        self._critics: dict[type[nn.Module], nn.Module] = {}
        self._begun: dict[type[nn.Module], nn.Module] = {}
        self._silent = silent
        with self._watching():
            self.told = estimates(
                encoder,
                train or grey("train"),
                grey("test"),
                estimation=estimation,
                ball=Linf(EPS),
                seed=4,
                device=torch.device("cpu"),
            )
        steps = [seen.x for seen in self._local if seen.of_attack]
        count = estimation.attack_steps
        self.attacks = [steps[i : i + count] for i in range(0, len(steps), count)]
        self.learned = [seen.x for seen in self._local if seen.training]
        # The encoder has been asked once more, for the number of its features.
        pairs = zip(self._encoder[1:], (seen.x for seen in self._local), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
        assert len(self.learned) == estimation.steps + SETTLING
        assert len(self.attacks) == len(self.learned) + len(self.told)

    @property
    def asked(self) -> list[list[Tensor]]:
        """The attacks of the batches that are asked about."""
        return self.attacks[len(self.learned) :]

    @property
    def begun(self) -> Critics:
        return _pair(self._begun)

    @property
    def ended(self) -> Critics:
        return _pair(self._critics)

    @contextmanager
    def _watching(self) -> Iterator[None]:
        handle = register_module_forward_pre_hook(self._see)
        try:
            yield
        finally:
            handle.remove()

    def _see(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if module is self.encoder:
            self._encoder.append(args[0].detach().clone())
        critic = isinstance(module, LocalCritic | GlobalCritic)
        if critic and type(module) not in self._critics:
            if self._silent and isinstance(module, LocalCritic):
                silence(module)
            self._critics[type(module)] = module
            self._begun[type(module)] = deepcopy(module)
        if isinstance(module, LocalCritic):
            now = torch.is_grad_enabled()
            self._local.append(Seen(args[0].detach().clone(), module.training, now))


def _pair(critics: dict[type[nn.Module], nn.Module]) -> Critics:
    local, whole = critics[LocalCritic], critics[GlobalCritic]
    assert isinstance(local, LocalCritic)
    assert isinstance(whole, GlobalCritic)
    return local, whole


def silence(module: nn.Module) -> None:
    """All images look the same to it from now on; no gradient mends that."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.weight)


def value(encoder: nn.Module, critics: Critics, x: Tensor) -> Tensor:
    """The estimate, as an attack of these critics sees it."""
    local, whole = (module.eval() for module in critics)
    encoder.eval()
    embeddings = local(x), whole(encoder(x))
    return estimate(*embeddings, estimator=WAY.estimator, faithful=False)


def stepped(
    encoder: nn.Module, critics: Critics, x: Tensor, step_size: float, images: ImageSet
) -> Tensor:
    """One step down the estimate, written out."""
    center, at = clean(x, images), x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(value(encoder, critics, at), at)
    return (x - step_size * grad.sign()).clamp(center - EPS, center + EPS)
