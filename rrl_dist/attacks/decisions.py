"""What decision-based attacks have in common: the model is asked for answers alone."""

from functools import partial

import torch
from torch import Tensor, nn

from rrl_dist.attacks.balls import L2, Ball
from rrl_dist.attacks.checks import check_counts, check_inputs
from rrl_dist.attacks.classifier import Classifier, borrowed
from rrl_dist.attacks.margins import misclassified
from rrl_dist.attacks.micro_batches import in_micro_batches
from rrl_dist.attacks.result import Attacked
from rrl_dist.attacks.trial_attack import Attack, run_trials
from rrl_dist.attacks.trials import Packing, Samples
from rrl_dist.core.errors import UserError

STAND_OFF = 1e-3  # share by which what is given back is farther than what was found


def check_decisions(name: str, ball: Ball, queries: int, micro_batch: int) -> None:
    """Settings that every such attack has.

    Raises:
        UserError: if a number is out of range, or the ball is of another norm.
    """
    check_counts(micro_batch=micro_batch)
    if queries < 2:
        raise UserError(
            f"{name} has queries={queries}; set it to 2 or more: the first is for the "
            "image itself"
        )
    if not isinstance(ball, L2):
        raise UserError(
            f"{name} minimizes L2 distances, and the ball is {ball.label()}; "
            "give an L2 ball"
        )


def attack_by_decisions(
    method: Attack,
    model: nn.Module,
    columns: tuple[Tensor, Tensor, Tensor | None],
    packing: Packing,
) -> Attacked:
    """`Attack.run` of a method of one trial a sample.

    Images that are wrong from the start are not handed to it. All answers are the
    model's own, and none a faster copy's: next to the boundary these may differ.

    Args:
        method: the attack; its trials tell `wrong` at their end only.
        model: the model.
        columns: x, y and index, as `Attack.run` takes them.
        packing: how trials are put into micro-batches.
    """
    x, y, given = columns
    index = torch.arange(len(x), device=x.device) if given is None else given
    check_inputs(x, y, index)
    if method.ball.eps == 0 or len(x) == 0:
        return Attacked(x.detach().clone(), torch.zeros_like(y))
    with borrowed(model, packing.size) as classifier:
        samples, alive = right_from_the_start(classifier, (x, y, index), packing.size)
        found = run_trials(method, classifier, samples, trials=1, packing=packing)
    x_adv = x.detach().clone(memory_format=torch.contiguous_format)
    queries = torch.ones_like(y)
    x_adv[alive] = found.x
    queries[alive] += found.queries
    return Attacked(x_adv, queries)


def right_from_the_start(
    classifier: Classifier, columns: tuple[Tensor, Tensor, Tensor], size: int
) -> tuple[Samples, Tensor]:
    """The samples x, y, index that the model is right about, and their places [M]."""
    x, y, index = columns
    clean = partial(_clean_logits, classifier)
    (logits,) = in_micro_batches(clean, x, y, size=size)
    alive = (~misclassified(logits, y)).nonzero()[:, 0]
    return Samples(x.detach(), y, index, logits).rows(alive), alive


def _clean_logits(classifier: Classifier, x: Tensor, y: Tensor) -> tuple[Tensor]:
    return (classifier.clean(x, y),)


def farther(center: Tensor, nearest: Tensor) -> Tensor:
    """[M, ...] nearest wrong images, moved off the boundary, where another rounding of
    the model would turn its answer."""
    return (nearest + STAND_OFF * (nearest - center)).clamp(0, 1)
