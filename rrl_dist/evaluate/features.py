"""A classifier's answers, with the features behind them where it has an encoder."""

from functools import partial
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rrl_dist.attacks.micro_batches import in_micro_batches
from rrl_dist.core.modes import evaluating
from rrl_dist.models.encoder import Classifier


class Answers(NamedTuple):
    """What a classifier says about N images.

    Attributes:
        logits: [N, K] float32, the model's own.
        features: [N, D] float32, the encoder's; None of a module that shows none.
        loss: [N] float64, cross-entropy in nats. With an encoder it is the head's on
            these features, worked out in float64: the bound is held against it to the
            last digits. Otherwise it is of the logits, in float64.
    """

    logits: Tensor
    features: Tensor | None
    loss: Tensor


@torch.no_grad()
def answers(model: nn.Module, x: Tensor, y: Tensor, *, size: int) -> Answers:
    """One forward of each image in eval mode, `size` images at a time.

    That is the attacks' own shape: at another one, a logit may round otherwise.
    """
    if isinstance(model, Classifier):
        ask = partial(_with_features, model)
    else:
        ask = partial(_alone, model)
    with evaluating(model):
        found = in_micro_batches(ask, x, y, size=size)
    logits, loss, *features = found
    return Answers(logits, features[0] if features else None, loss)


def _with_features(model: Classifier, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    h = model.encoder(x)
    return model.head(h).float(), _head_loss(model, h, y), h.float()


def _alone(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    logits = model(x)
    return logits.float(), F.cross_entropy(logits.double(), y, reduction="none")


def _head_loss(model: Classifier, h: Tensor, y: Tensor) -> Tensor:
    head = cast(nn.Linear, model.head)
    logits = F.linear(h.double(), head.weight.double(), head.bias.double())
    return F.cross_entropy(logits, y, reduction="none")
