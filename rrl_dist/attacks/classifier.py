"""The model as an attack sees it."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from rrl_dist.attacks.checks import (
    check_classes,
    check_logits,
    check_no_probabilities,
)
from rrl_dist.attacks.margins import logit_margin, misclassified
from rrl_dist.attacks.micro_batches import in_micro_batches
from rrl_dist.attacks.twin import faster, rougher
from rrl_dist.core.errors import UserError
from rrl_dist.core.modes import evaluating, frozen

# Where an answer is in doubt: this often the difference that a copy was seen to have,
# and at least some roundings of float32, as shares of the gap from the smallest to the
# largest logit, or of the largest that was seen.
DOUBT, LEAST_DOUBT = 8, 1e-6
# Of a copy in bfloat16, which was seen to be this often as far off on images.
ROUGH_DOUBT = 2


class Classifier:
    """Calls a model and remembers what was wrong with its logits.

    Args:
        model: images [N, ...] -> logits [N, K].
        size: images of every call of the model; None for as many as there are.
    """

    def __init__(self, model: nn.Module, size: int | None = None) -> None:
        self._model = model
        self.size = size
        self._dtype = _half(model)
        # Of a copy: the model itself, and within which margin it is asked.
        self._original: Classifier | None = None
        self._doubt, self._scale = 0.0, 0.0
        # Whether no claim of it is taken without asking.
        self.is_rough = False
        self._nan: Tensor | None = None
        self._infinite: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """x: [N, ...] images, N a multiple of the size -> [N, K] float32 logits.

        Raises:
            UserError: if that is not what the model returns, or if the logits have no
                graph although x has one.
        """
        parts = torch.split(x, self.size or max(len(x), 1))
        answers = [check_logits(self._model(self._as_its(p)), len(p)) for p in parts]
        answers = [logits.float() for logits in answers]
        logits = answers[0] if len(answers) == 1 else torch.cat(answers)
        if x.requires_grad and not logits.requires_grad:
            raise UserError(
                "the model's logits carry no gradient to the images, so any gradient "
                "attack would find it robust; call it without torch.no_grad or detach"
            )
        nan = logits.detach().isnan().any()
        self._nan = nan if self._nan is None else self._nan | nan
        return logits

    def _as_its(self, x: Tensor) -> Tensor:
        return x if self._dtype is None else x.to(self._dtype)

    def clean(self, x: Tensor, y: Tensor) -> Tensor:
        """As a call; labels y: [N] are held against the number of classes, too.

        Raises:
            UserError: as a call, if a label has no logit, or if the logits have been
                through a softmax.
        """
        logits = self(x)
        check_classes(y, logits.shape[1])
        check_no_probabilities(logits)
        infinite = logits.detach().isinf().any()
        held = self._infinite
        self._infinite = infinite if held is None else held | infinite
        return logits

    def wrong(
        self, x: Tensor, logits: Tensor, y: Tensor, near: Tensor | None = None
    ) -> Tensor:
        """Whether the answers are wrong.

        A copy asks the model itself where rounding could turn its answer. One in
        bfloat16 asks a copy in float32 wherever it would say wrong, and, of rows
        that are `near`, wherever it is in doubt; of others it is left to `doubted`.

        Args:
            x: [N, ...] images.
            logits: [N, K] of a call.
            y: [N] int64 labels.
            near: [N] bool, the rows whose answer may be the outcome; None for all, with
                no doubt to be cleared now. It counts in bfloat16 alone.

        Returns:
            [N] bool.
        """
        answers = misclassified(logits, y)
        if self._original is None:
            return answers
        if not self.is_rough:
            asked = self.doubted(logits, y)
        else:
            asked = answers if near is None else near & self._or_doubted(logits, y)
        if not bool(asked.any()):
            return answers
        return self._original.corrected(answers, x, y, asked)

    def _or_doubted(self, logits: Tensor, y: Tensor) -> Tensor:
        return misclassified(logits, y) | self.doubted(logits, y)

    def doubted(self, logits: Tensor, y: Tensor) -> Tensor:
        """[N, K] logits of a call, [N] labels -> [N] bool, where a copy may be mistaken
        about what is wrong."""
        size = (logits.amax(1) - logits.amin(1)).clamp_min(self._scale)
        return logit_margin(logits, y).abs() <= self._doubt * size

    def corrected(self, answers: Tensor, x: Tensor, y: Tensor, asked: Tensor) -> Tensor:
        """[N] bool answers to x [N, ...], given anew for the rows `asked` [N] bool."""
        rows = asked.nonzero()[:, 0]
        size = self.size or len(x)
        (found,) = in_micro_batches(self._judged, x[rows], y[rows], size=size)
        return answers.index_copy(0, rows, found)

    def _judged(self, x: Tensor, y: Tensor) -> tuple[Tensor]:
        return (self.wrong(x, self(x), y),)

    def sooner(self, like: Tensor, precision: str = "fp32") -> "Classifier":
        """One that answers the same sooner, for images as `like` [M, ...]; or this. In
        "bf16" one that answers nearly the same, where there is one."""
        shape = torch.Size([self.size or len(like), *like.shape[1:]])
        twin = faster(self._model, shape, like.device)
        found = self
        if twin.module is not self._model:
            found = Classifier(twin.module, self.size)
            found._original = self
            found._doubt, found._scale = max(DOUBT * twin.off, LEAST_DOUBT), twin.scale
        return found if precision == "fp32" else found._roughly(shape, like.device)

    def _roughly(self, shape: torch.Size, device: torch.device) -> "Classifier":
        twin = None if self._dtype else rougher(self._model, shape, device)
        if twin is None:
            return self
        found = Classifier(twin.module, self.size)
        # Its weights are of no type that images must have.
        found._dtype, found._original, found.is_rough = None, self, True
        found._doubt, found._scale = ROUGH_DOUBT * twin.off, twin.scale
        return found

    @property
    def original(self) -> "Classifier":
        """What a copy is of; itself if it is none."""
        return self if self._original is None else self._original

    def verify(self) -> None:
        """To be called once at the end: reading a flag makes the host wait.

        Raises:
            UserError: if any logit was NaN.

        Warns:
            UserWarning: if a clean image's logit was infinite.
        """
        if self._nan is not None and bool(self._nan):
            raise UserError(
                "the model returned NaN logits; check its weights and its precision"
            )
        if self._infinite is not None and bool(self._infinite):
            # Not refused: attacks that need no gradient still judge such images.
            warnings.warn(
                "the model returned infinite logits, where gradients may vanish; "
                "check its weights and its precision",
                stacklevel=2,
            )


def _half(model: nn.Module) -> torch.dtype | None:
    """The type of all its weights, if that is one of half precision, which takes images
    of no other."""
    types = {p.dtype for p in model.parameters() if p.is_floating_point()}
    if len(types) == 1 and types <= {torch.float16, torch.bfloat16}:
        return types.pop()
    return None


@contextmanager
def borrowed(model: nn.Module, size: int | None = None) -> Iterator[Classifier]:
    """The model in eval mode without parameter gradients; given back as it was.

    Inside, no graph is built unless asked for, whatever the caller's grad mode.

    Args:
        model, size: see `Classifier`.

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
        classifier = Classifier(model, size)
        yield classifier
        classifier.verify()
