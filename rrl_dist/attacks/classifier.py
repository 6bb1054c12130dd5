"""The model as an attack sees it."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rrl_dist.attacks.checks import check_classes, check_logits
from rrl_dist.core.errors import UserError
from rrl_dist.core.modes import evaluating, frozen


class Classifier:
    """Calls a model and remembers what was wrong with its logits."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._nan: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """x: [N, ...] images -> [N, K] float32 logits.

        Raises:
            UserError: if that is not what the model returns, or if the logits have no
                graph although x has one.
        """
        logits = check_logits(self._model(x), len(x)).float()
        if x.requires_grad and not logits.requires_grad:
            raise UserError(
                "the model's logits carry no gradient to the images, so any gradient "
                "attack would find it robust; call it without torch.no_grad or detach"
            )
        nan = logits.detach().isnan().any()
        self._nan = nan if self._nan is None else self._nan | nan
        return logits

    def clean(self, x: Tensor, y: Tensor) -> Tensor:
        """As a call; labels y: [N] are held against the number of classes, too.

        Raises:
            UserError: as a call, or if a label has no logit.
        """
        logits = self(x)
        check_classes(y, logits.shape[1])
        return logits

    def verify(self) -> None:
        """To be called once at the end: reading a flag makes the host wait.

        Raises:
            UserError: if any logit was NaN.
        """
        if self._nan is not None and bool(self._nan):
            raise UserError(
                "the model returned NaN logits; check its weights and its precision"
            )


@contextmanager
def borrowed(model: nn.Module) -> Iterator[Classifier]:
    """The model in eval mode without parameter gradients; given back as it was.

    Inside, no graph is built unless asked for, whatever the caller's grad mode.

    Raises:
        UserError: at the end, if it returned NaN.
    """
    # In this order: leaving inference mode switches gradients on.
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        frozen(model),
        evaluating(model),
    ):
        classifier = Classifier(model)
        yield classifier
        classifier.verify()
