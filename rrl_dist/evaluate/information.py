"""What an encoder's features tell of the images: critics that are fitted, and asked.

After Zhu, Zhang, Evans 2020, arXiv:2002.11798, whose text could not be read; this is
what their released code does, but for what is named below. The encoder is frozen. One
critic embeds places of an image, one its features; both are fitted on the training
images to raise an estimate of the mutual information between places and features. What
is told is the estimate on batches of held-out images, on which nothing is fitted:
critics that know their training images by heart cannot raise it.

The worst case has critics of its own, fitted on images that are attacked meanwhile, and
asked about attacked images. The attack is projected gradient descent on the estimate of
a whole batch, whose images move together. It begins at a random point and goes through
encoder and critic; in the released code at the clean image and through the encoder
alone, which is weaker.

Each estimate is of one place of an image at a time, averaged over places: what features
tell of the whole image is more.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rrl_dist.attacks.ascent import ascend
from rrl_dist.attacks.balls import Ball
from rrl_dist.core.errors import UserError
from rrl_dist.core.modes import evaluating, frozen
from rrl_dist.core.randomness import Key, stream, torch_stream
from rrl_dist.data.datasets import ImageSet
from rrl_dist.data.memory_loader import read_images
from rrl_dist.data.order import worker_positions
from rrl_dist.evaluate.estimation import Estimation
from rrl_dist.models.critics import GlobalCritic, LocalCritic
from rrl_dist.objectives.mutual_information import estimate

SETTLING = 16  # batches for the statistics of batch norm, after the last step
FLAT = 1e-3  # least std that images are divided by: those of one colour have none


@dataclass(frozen=True)
class Images:
    """Some images: pixels [N, 3, H, W] in [0, 1], and index [N]."""

    x: Tensor
    index: Tensor


def estimates(
    encoder: nn.Module,
    train: ImageSet,
    test: ImageSet,
    *,
    estimation: Estimation,
    ball: Ball | None,
    seed: int,
    device: torch.device,
) -> list[float]:
    """Estimates of the information between images and features, in nats.

    Args:
        encoder: [N, 3, H, W] in [0, 1] -> [N, D], on `device`; it is asked in eval
            mode and left as it was.
        train: the critics are fitted on these.
        test: held out; cut into batches, of which the last is left out if it is short.
        estimation: how.
        ball: the attack's threat model; None for clean images.
        seed: of the critics' weights, the order of images and the attack's starts: the
            same for clean and for attacked images, so that at eps 0 both are equal.
        device: where to work.

    Returns:
        one for each batch of `test`.

    Raises:
        UserError: too few images, or estimates that are not finite.
    """
    estimation.check_images(train=len(train), test=len(test))
    size = estimation.batch_size
    order = _epochs(len(train), size, seed)
    fitted = (_read(train, places, device) for places in order)
    mixed = stream(seed, "held out").permutation(len(test))
    asked = mixed[: len(test) // size * size].reshape(-1, size)
    with evaluating(encoder), frozen(encoder):
        judge = _Judge(encoder, next(fitted), estimation, ball, seed)
        for step, images in enumerate(islice(fitted, estimation.steps)):
            judge.fit(images, step)
        judge.settle(islice(fitted, SETTLING))
        found = [
            judge.ask(_read(test, part, device), k) for k, part in enumerate(asked)
        ]
    if not np.isfinite(found).all():
        raise UserError(
            f"estimates of information are not finite: {found}; lower "
            f"suite.vulnerability.lr={estimation.lr}, or check the encoder's weights"
        )
    return found


def _epochs(images: int, size: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Places of batches, without end."""
    for epoch in count():
        settings = {"seed": seed, "epoch": epoch, "batch_size": size}
        alone = {"rank": 0, "workers": 1, "start": 0}
        places = worker_positions(count=images, **settings, **alone)
        yield from places.reshape(-1, size)


def _read(images: ImageSet, places: NDArray[np.int64], device: torch.device) -> Images:
    x = read_images(images, places).to(device).float() / 255
    return Images(x, torch.as_tensor(images.index[places], device=device))


class _Judge:
    """Two critics of an encoder.

    Args:
        encoder: in eval mode and frozen.
        some: images that critics are normalized by: not the encoder's own numbers,
            so that all encoders get the same critics.
    """

    def __init__(
        self,
        encoder: nn.Module,
        some: Images,
        estimation: Estimation,
        ball: Ball | None,
        seed: int,
    ) -> None:
        self.encoder, self.estimation = encoder, estimation
        self.ball = None if ball is None or ball.eps == 0 else ball
        self.seed = seed
        with torch.no_grad():
            features = encoder(some.x).shape[1]
        std, mean = torch.std_mean(some.x, dim=(0, 2, 3))
        embedding = estimation.embedding
        # Torch's initializers know no generator but the global one.
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(torch_stream(seed, "critics").get_state())
            self.local = LocalCritic(
                width=estimation.width,
                embedding=embedding,
                grid=estimation.grid,
                mean=mean.tolist(),
                std=std.clamp_min(FLAT).tolist(),
                sync_bn=False,
            )
            self.whole = GlobalCritic(features, embedding=embedding, sync_bn=False)
        self.critics = nn.ModuleList([self.local, self.whole]).to(some.x.device)
        parameters = self.critics.parameters()
        self.optimizer = torch.optim.Adam(parameters, lr=estimation.lr)

    def fit(self, images: Images, step: int) -> None:
        """One step of the critics, in train mode, on attacked images if there is a
        ball."""
        x = self._attacked(images, ("fit", step), thorough=False)
        self.critics.train()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            h = self.encoder(x)
        torch.autograd.backward(-self._estimate(x, h))
        self.optimizer.step()

    def settle(self, batches: Iterable[Images]) -> None:
        """Batch norm's statistics anew, of the last weights: those that were kept while
        weights moved lag behind, and critics that are asked with them know less."""
        shown = [
            self._attacked(images, ("settle", number), thorough=False)
            for number, images in enumerate(batches)
        ]
        for module in self.critics.modules():
            if isinstance(module, _BatchNorm):
                module.reset_running_stats()
                module.momentum = None  # the plain mean over batches
        self.critics.train()
        with torch.no_grad():
            for x in shown:
                self._estimate(x, self.encoder(x))

    def ask(self, images: Images, batch: int) -> float:
        """The estimate of one batch, attacked if there is a ball, in nats."""
        x = self._attacked(images, ("ask", batch), thorough=True)
        self.critics.eval()
        with torch.no_grad():
            return float(self._estimate(x, self.encoder(x)))

    def _estimate(self, x: Tensor, h: Tensor) -> Tensor:
        return estimate(
            self.local(x),
            self.whole(h.float()),
            estimator=self.estimation.estimator,
            faithful=False,
        )

    def _attacked(
        self, images: Images, key: tuple[Key, ...], *, thorough: bool
    ) -> Tensor:
        """The last images of the attack; if it is thorough, of the clean batch and all
        iterates the one with the lowest estimate, for two more estimates."""
        if self.ball is None:
            return images.x
        key = ("information", *key)
        with evaluating(self.critics), frozen(self.critics):
            lowest = _Lowest(lambda x: self._estimate(x, self.encoder(x)))
            last = ascend(
                lowest,
                self.ball.start(images.x, seed=self.seed, key=key, index=images.index),
                images.x,
                ball=self.ball,
                steps=self.estimation.attack_steps,
                step_size=self.estimation.relative_step * self.ball.eps,
            )
            if not thorough:
                return last
            with torch.no_grad():
                lowest(last)
                lowest(images.x)
        return lowest.x


class _Lowest:
    """The negative of an estimate, to be raised; keeps where the estimate was lowest.

    Attributes:
        x: the batch there.
    """

    x: Tensor

    def __init__(self, estimate: Callable[[Tensor], Tensor]) -> None:
        self._estimate = estimate
        self._value: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        found = self._estimate(x)
        self._keep(x.detach(), found.detach())
        return -found

    def _keep(self, x: Tensor, value: Tensor) -> None:
        if self._value is None:
            self.x, self._value = x, value
        # Not asked on the host, which would have to wait for the device.
        lower = value < self._value
        self.x = torch.where(lower, x, self.x)
        self._value = torch.where(lower, value, self._value)
