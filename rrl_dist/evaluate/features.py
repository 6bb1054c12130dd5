"""A classifier's answers, with the features behind them."""

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
        features: [N, D] float32, the encoder's.
        loss: [N] float64, cross-entropy in nats of the head on these features, worked
            out in float64: the bound is held against it to the last digits.
    """

    logits: Tensor
    features: Tensor
    loss: Tensor


@torch.no_grad()
def answers(model: Classifier, x: Tensor, y: Tensor, *, size: int) -> Answers:
    """One forward of each image in eval mode, `size` images at a time.

    That is the attacks' own shape: at another one, a logit may round otherwise.
    """

    def part(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        h = model.encoder(x)
        return model.head(h).float(), h.float(), _head_loss(model, h, y)

    with evaluating(model):
        return Answers(*in_micro_batches(part, x, y, size=size))


def _head_loss(model: Classifier, h: Tensor, y: Tensor) -> Tensor:
    head = cast(nn.Linear, model.head)
    logits = F.linear(h.double(), head.weight.double(), head.bias.double())
    return F.cross_entropy(logits, y, reduction="none")
