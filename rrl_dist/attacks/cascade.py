"""Attacks in turn, each on what those before have left right.

The worst case over attacks does not depend on their order or on what one finds about an
image that another has broken. So none is asked about such an image.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from rrl_dist.attacks.balls import Ball
from rrl_dist.attacks.checks import check_inputs
from rrl_dist.attacks.classifier import Classifier, borrowed
from rrl_dist.attacks.margins import misclassified
from rrl_dist.attacks.micro_batches import in_micro_batches
from rrl_dist.attacks.result import Attack, Attacked
from rrl_dist.core.errors import UserError


@dataclass(frozen=True)
class Stage:
    """What one attack of a cascade did.

    Attributes:
        name: the attack's.
        wrong: [N] bool, images that it was asked about and broke.
        queries: [N] int64, forward passes.
        seconds: of the whole stage.
    """

    name: str
    wrong: Tensor
    queries: Tensor
    seconds: float


class Cascade:
    """A component of an evaluation that is several attacks.

    Args:
        label: its name.
        attacks: by name what makes each of ball, seed and micro_batch, in their order.
        ball: the threat model of all.
        seed: of all.
        micro_batch: images of every call of the model.

    Raises:
        UserError: there is no attack.
    """

    def __init__(
        self,
        *,
        label: str,
        attacks: Mapping[str, Callable[..., Attack]],
        ball: Ball,
        seed: int,
        micro_batch: int,
    ) -> None:
        if not attacks:
            raise UserError(f"{label} is of no attacks; name at least one")
        self.name, self.ball, self.seed = label, ball, seed
        self.micro_batch = micro_batch
        self.attacks = tuple(
            make(ball=ball, seed=seed, micro_batch=micro_batch)
            for make in attacks.values()
        )

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, index: Tensor | None = None
    ) -> Tensor:
        """As `run`, the images alone."""
        return self.run(model, x, y, index).x_adv

    def run(
        self, model: nn.Module, x: Tensor, y: Tensor, index: Tensor | None = None
    ) -> Attacked:
        """See `rrl_dist.attacks.result.Attack.run`."""
        return self.stages(model, x, y, index)[0]

    def stages(
        self, model: nn.Module, x: Tensor, y: Tensor, index: Tensor | None = None
    ) -> tuple[Attacked, list[Stage]]:
        """As `run`, and what each attack did; the first stage is "clean".

        Of an image that none breaks the last attack's is given back.
        """
        index = torch.arange(len(x), device=x.device) if index is None else index
        check_inputs(x, y, index)
        x_adv = x.detach().clone(memory_format=torch.contiguous_format)
        begin = time.perf_counter()
        wrong = self._wrong(model, x_adv, y)
        stages = [
            Stage("clean", wrong, torch.ones_like(y), time.perf_counter() - begin)
        ]
        right = ~wrong
        for attack in self.attacks:
            begin = time.perf_counter()
            alive = right.nonzero()[:, 0]
            found = attack.run(model, x[alive], y[alive], index[alive])
            x_adv[alive] = found.x_adv
            broken, queries = torch.zeros_like(right), torch.zeros_like(y)
            broken[alive] = self._wrong(model, found.x_adv, y[alive])
            queries[alive] = found.queries
            right = right & ~broken
            seconds = time.perf_counter() - begin
            stages.append(Stage(attack.name, broken, queries, seconds))
        total = torch.stack([stage.queries for stage in stages]).sum(0)
        return Attacked(x_adv, total), stages

    def _wrong(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """[N] bool, by calls of the attacks' own shape."""
        with borrowed(model) as classifier:
            asked = partial(_answers, classifier)
            (wrong,) = in_micro_batches(asked, x, y, size=self.micro_batch)
        return wrong


def _answers(classifier: Classifier, x: Tensor, y: Tensor) -> tuple[Tensor]:
    return (misclassified(classifier.clean(x, y), y),)
