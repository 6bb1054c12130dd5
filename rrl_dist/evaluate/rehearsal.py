"""A classifier on a few images of the data, before any worker starts."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from rrl_dist.attacks.cascade import Cascade
from rrl_dist.attacks.checks import are_probabilities, check_logits
from rrl_dist.attacks.feature import FeatureAttack
from rrl_dist.attacks.result import Attack
from rrl_dist.core.errors import UserError
from rrl_dist.core.modes import evaluating
from rrl_dist.evaluate.images import Images, pixels
from rrl_dist.evaluate.plan import Suite
from rrl_dist.evaluate.source import Source
from rrl_dist.evaluate.subject import Subject, load_subject

COUNT = 8  # images
_AT_RANDOM = (
    "{} answers otherwise when it is asked again: numbers will not repeat; "
    "suite=autoattack_rand is for such models"
)


def some_images(images: Images) -> Images:
    """A few that stand for all; in a folder one class comes after another."""
    count = min(COUNT, len(images))
    return images.select(np.arange(count) * len(images) // count)


def rehearse_subject(source: Source, subject: Subject, images: Images) -> list[str]:
    """Ask a classifier about some images of the data, on the CPU.

    Args:
        source: names the classifier in messages.
        subject: what is asked.
        images: a few.

    Returns:
        what a person should know, a line each.

    Raises:
        UserError: it does not take such images, its answers are no logits, are for
            another number of classes, or are not finite, or it is another each time
            that it is made.
    """
    if source.kind == "function" and source.weights is None:
        load_subject(replace(source, sha256=subject.sha256))
    drawn = rehearse_module(source.model, subject.module, images, size=subject.size)
    return [*subject.notes, *drawn, *_size_notes(source, subject, images.size)]


def rehearse_module(
    name: str, module: nn.Module, images: Images, *, size: int | None = None
) -> list[str]:
    """As `rehearse_subject`, of a module that is there.

    Args:
        name: the classifier's, for messages.
        module: what is asked.
        images: a few.
        size: of the images that it was made for, where that is known.
    """
    x = pixels(images, np.arange(len(images)))
    about = _Asked(name, module, images.name, size)
    logits = check_logits(about.answer(x), len(x)).float()
    classes = len(images.classes)
    if logits.shape[1] != classes:
        raise UserError(
            f"{name} returns {logits.shape[1]} logits, and {images.name} has "
            f"{classes} classes; give a model for these, or set data.classes="
        )
    if not bool(logits.isfinite().all()):
        raise UserError(
            f"{name} returns logits that are not finite; check its weights and its "
            "precision"
        )
    if are_probabilities(logits):
        raise UserError(
            f"{name} returns probabilities, whose gradients vanish where it is sure; "
            "return logits, without the softmax"
        )
    again = check_logits(about.answer(x), len(x)).float()
    return [] if torch.equal(logits, again) else [_AT_RANDOM.format(name)]


@dataclass(frozen=True)
class _Asked:
    """Who is asked about what, for messages."""

    name: str
    module: nn.Module
    data: str
    size: int | None

    def answer(self, x: Tensor) -> object:
        """Whatever the module returns, in eval mode."""
        try:
            with torch.no_grad(), evaluating(self.module):
                return self.module(x)
        except Exception as error:  # whatever a stranger's code may raise
            told = " ".join(str(error).split())[:160]
            size = f"{x.shape[-1]} x {x.shape[-1]}"
            mend = f"; it is made for {self.size} x {self.size}" if self.size else ""
            raise UserError(
                f"{self.name} does not take the {size} images of {self.data} "
                f"({type(error).__name__}: {told}){mend}; choose data= of its size, or "
                "a model for these"
            ) from error


def _size_notes(source: Source, subject: Subject, size: int) -> list[str]:
    if subject.size in (None, size) or source.weights is not None:
        return []
    return [
        f"{source.model} is made for images of {subject.size} x {subject.size} and "
        f"gets {size} x {size}"
    ]


def check_suite(name: str, suite: Suite, *, has_encoder: bool) -> None:
    """Hold the attacks against what a classifier shows of itself.

    Args:
        name: the classifier's, for messages.
        suite: its components.
        has_encoder: whether features and head can be told apart.

    Raises:
        UserError: one of them reads an encoder's features, or information in features
            is asked for, and there is no encoder.
    """
    if has_encoder:
        return
    mend = "choose a suite without it, such as suite=autoattack or suite=pgd_apgd"
    if suite.estimation is not None:
        raise UserError(
            f"suite.vulnerability reads an encoder's features, and {name} shows none; "
            f"{mend}"
        )
    for component, attack in suite.attacks.items():
        if attack is not None and _reads_features(attack):
            raise UserError(
                f"{component} attacks an encoder's features, and {name} shows none; "
                f"{mend}"
            )


def _reads_features(attack: Attack) -> bool:
    parts = attack.attacks if isinstance(attack, Cascade) else (attack,)
    return any(isinstance(part, FeatureAttack) for part in parts)
