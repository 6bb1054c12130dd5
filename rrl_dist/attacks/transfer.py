"""Transfer attacks: images made on one model, a surrogate, and shown to another.

Papernot et al. 2016, arXiv:1605.07277. They ask nothing of the other model's gradients:
where they break more than that model's own gradient attacks do, it hides them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from rrl_dist.attacks.balls import Ball
from rrl_dist.attacks.checks import (
    check_ball,
    check_classes,
    check_counts,
    check_device,
    check_inputs,
)
from rrl_dist.attacks.classifier import Classifier, borrowed
from rrl_dist.attacks.margins import misclassified
from rrl_dist.attacks.micro_batches import in_micro_batches, size_for
from rrl_dist.attacks.momentum import MIFGSM
from rrl_dist.attacks.result import Attack, Attacked
from rrl_dist.core.aggregate import Proportion, wilson
from rrl_dist.core.errors import UserError

# Makes an attack of ball, seed and micro_batch.
MakeAttack = Callable[..., Attack]

# The values of configs/attack/mi_fgsm.yaml.
MI_FGSM = partial(MIFGSM, steps=10, relative_step=0.25, decay=1.0, random_start=False)


class Transfer:
    """Attacks a surrogate, with the labels, on what the model itself gets right.

    An image that the model gets wrong is given back as it is; one that the surrogate
    gets wrong is attacked like the others. The attack should go on from there and from
    its first success to an image of high loss, as `MIFGSM` and `PGD` do: `APGD`, `FAB`,
    `Square` and what is made of them stop just over the surrogate's border.

    A query is a forward pass of the model: one, of the clean image. The surrogate's
    are not counted, and the image that was made is the caller's to judge.

    Args:
        surrogate: images [N, ...] in [0, 1] -> logits [N, K], on the device of the
            images. It is given back as it was.
        source: the surrogate's name.
        attack: makes the attack of `ball`, `seed` and `micro_batch`.
        ball: the threat model.
        seed: of the attack.
        micro_batch: images of every call of either model.

    Raises:
        UserError: the surrogate has no name, or a number is out of range.
    """

    def __init__(
        self,
        *,
        surrogate: nn.Module,
        source: str,
        attack: MakeAttack,
        ball: Ball,
        seed: int,
        micro_batch: int,
    ) -> None:
        check_counts(micro_batch=micro_batch)
        _check_names((source,))
        self.surrogate, self.source = surrogate, source
        self.ball, self.seed, self.micro_batch = ball, seed, micro_batch
        self.attack = attack(ball=ball, seed=seed, micro_batch=micro_batch)

    @property
    def name(self) -> str:
        """Such as "mi-fgsm10-from-SOURCE"."""
        return f"{self.attack.name}-from-{self.source}"

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, index: Tensor | None = None
    ) -> Tensor:
        """As `run`, the images alone."""
        return self.run(model, x, y, index).x_adv

    def run(
        self, model: nn.Module, x: Tensor, y: Tensor, index: Tensor | None = None
    ) -> Attacked:
        """See `rrl_dist.attacks.result.Attack.run`.

        Raises:
            UserError: also if the surrogate is on another device or has another number
                of classes.
        """
        index = torch.arange(len(x), device=x.device) if index is None else index
        check_inputs(x, y, index)
        if self.ball.eps == 0 or len(x) == 0:
            return Attacked(x.detach().clone(), torch.zeros_like(y))
        logits = _logits(model, x, self.micro_batch)
        check_classes(y, logits.shape[1])
        alive = (~misclassified(logits, y)).nonzero()[:, 0]
        with _named(self.source):
            check_device(self.surrogate, x)
            theirs = _logits(self.surrogate, x[:1], self.micro_batch)
        _check_same_classes({"the model": logits, self.source: theirs})
        with _named(self.source):
            made = self.attack(self.surrogate, x[alive], y[alive], index[alive])
        # A copy in one layout, whatever the caller's.
        x_adv = x.detach().clone(memory_format=torch.contiguous_format)
        x_adv[alive] = made
        return Attacked(x_adv, torch.ones_like(y))


@dataclass(frozen=True)
class TransferMatrix:
    """Which images every model still gets right when they are made on every other.

    Attributes:
        names: [M] names of the models, sources and targets alike.
        clean: [M, N] bool, whether a model gets the clean image right.
        robust: [M, M, N] bool, source, target, image: whether the target gets the
            clean image and the source's right. On the diagonal is a white box.
    """

    names: tuple[str, ...]
    clean: Tensor
    robust: Tensor

    @property
    def clean_accuracy(self) -> dict[str, Proportion]:
        """Of each model, on all images."""
        return _shares(self.names, self.clean)

    @property
    def accuracy(self) -> dict[str, dict[str, Proportion]]:
        """`accuracy[source][target]`: the target's under the source's images, on all
        images."""
        rows = (_shares(self.names, flags) for flags in self.robust)
        return dict(zip(self.names, rows, strict=True))

    @property
    def common(self) -> Tensor:
        """[N] bool, the clean images that all models get right."""
        return self.clean.all(0)

    @property
    def success_on_common(self) -> dict[str, dict[str, Proportion]]:
        """`success_on_common[source][target]`: the share of the common images that the
        source turns into what the target gets wrong. The targets' clean accuracies do
        not enter.

        Raises:
            UserError: there is no such image.
        """
        if not self.common.any():
            raise UserError(
                f"no image is right under all of {', '.join(self.names)}; "
                "leave the worst model out, or give more images"
            )
        broken = ~self.robust[:, :, self.common]
        rows = (_shares(self.names, flags) for flags in broken)
        return dict(zip(self.names, rows, strict=True))


def transfer_matrix(
    models: Mapping[str, nn.Module],
    x: Tensor,
    y: Tensor,
    *,
    ball: Ball,
    attack: MakeAttack = MI_FGSM,
    seed: int = 0,
    batch_size: int = 256,
    index: Tensor | None = None,
) -> TransferMatrix:
    """Attack images on every model and show them to every other.

    The flags are those of `Transfer` for each pair, for the price of one attack a
    model: the images that a source makes do not depend on whom they are for.

    Args:
        models: by name, images [N, ...] in [0, 1] -> logits [N, K], on the device of x;
            each normalizes inside. They are given back as they were.
        x: [N, ...] float32 in [0, 1], N >= 1.
        y: [N] int64 labels.
        ball: the threat model, such as `Linf(8 / 255)`.
        attack: makes the attack of ball, seed and micro_batch; see `Transfer` for what
            suits.
        seed: of all draws.
        batch_size: images of every call of a model on an accelerator; what is found
            depends on it by rounding alone. On a CPU calls are of 32 images whatever it
            is, so that what is found does not depend on it at all.
        index: [N] int64, which samples these are, for their draws; 0 to N - 1 if None.

    Raises:
        UserError: there is no model or no image, a model has no name, is on another
            device or has another number of classes; or what an attack refuses.
    """
    check_ball(ball)
    index = torch.arange(len(x), device=x.device) if index is None else index
    check_inputs(x, y, index)
    size = size_for(batch_size, x.device)
    made_by = attack(ball=ball, seed=seed, micro_batch=size)
    logits = _clean_logits(models, x, size)
    check_classes(y, next(iter(logits.values())).shape[1])
    clean = torch.stack([~misclassified(rows, y) for rows in logits.values()])
    # An image that none gets right is broken under all of them without an attack.
    alive = clean.any(0).nonzero()[:, 0]
    robust = clean.repeat(len(models), 1, 1)
    for row, (name, source) in enumerate(models.items()):
        with _named(name):
            x_adv = made_by(source, x[alive], y[alive], index[alive])
        if len(alive) == 0:
            continue
        for column, target in enumerate(models.values()):
            wrong = misclassified(_logits(target, x_adv, size), y[alive])
            robust[row, column, alive] &= ~wrong
    return TransferMatrix(tuple(models), clean, robust)


def _clean_logits(
    models: Mapping[str, nn.Module], x: Tensor, size: int
) -> dict[str, Tensor]:
    """[N, K] of each model, after all that can be said of them before an attack."""
    if not models or not len(x):
        raise UserError(
            f"a transfer matrix of {len(models)} models and {len(x)} images; "
            "give at least one of each"
        )
    _check_names(models)
    logits = {}
    for name, model in models.items():
        with _named(name):
            check_device(model, x)
            logits[name] = _logits(model, x, size)
    _check_same_classes(logits)
    return logits


def _logits(model: nn.Module, x: Tensor, size: int) -> Tensor:
    """[N, K], by calls of the attack's own shape."""
    with borrowed(model) as classifier:
        asked = partial(_as_tuple, classifier)
        (logits,) = in_micro_batches(asked, x.detach(), size=size)
    return logits


def _as_tuple(classifier: Classifier, x: Tensor) -> tuple[Tensor]:
    return (classifier(x),)


def _shares(names: tuple[str, ...], flags: Tensor) -> dict[str, Proportion]:
    """[M, N] bool -> the share of each row's images."""
    counts = flags.sum(1).tolist()
    shares = (wilson(count, flags.shape[1]) for count in counts)
    return dict(zip(names, shares, strict=True))


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Says which of several models a complaint is about."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{name}: {error}") from None


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        if not (isinstance(name, str) and name.strip()):
            raise UserError(f"a model is named {name!r}; give it a name of letters")


def _check_same_classes(logits: Mapping[str, Tensor]) -> None:
    """Of another number of classes one label means two things."""
    (first, expected), *others = (
        (name, rows.shape[1]) for name, rows in logits.items()
    )
    for name, found in others:
        if found != expected:
            raise UserError(
                f"{name} has {found} classes and {first} {expected}; give models "
                "of the same classes"
            )
