"""Attacks in turn, each on what those before have left right.

The worst case over attacks does not depend on their order or on what one finds about an
image that another has broken. So none is asked about such an image.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from rrl_dist.attacks.balls import Ball
from rrl_dist.attacks.checks import check_inputs
from rrl_dist.attacks.classifier import Classifier, borrowed
from rrl_dist.attacks.margins import misclassified
from rrl_dist.attacks.micro_batches import in_micro_batches
from rrl_dist.attacks.passes import Passes, counted
from rrl_dist.attacks.precision import in_precision
from rrl_dist.attacks.result import Attack, Attacked, Particular
from rrl_dist.core.errors import UserError

CLEAN = "clean"  # the stage that asks about the image itself


@dataclass(frozen=True)
class Stage:
    """What one attack of a cascade did.

    Attributes:
        name: the attack's.
        wrong: [N] bool, images that it was asked about and broke.
        queries: [N] int64, forward passes that each image took.
        passes: images that went through the model and back, fillings included.
        seconds: of the whole stage.
    """

    name: str
    wrong: Tensor
    queries: Tensor
    passes: Passes
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
        UserError: there is no attack, or two have one name.
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
        names = [attack.name for attack in self.attacks]
        if len(set(names)) < len(names):
            raise UserError(f"{label} has two attacks of one name: {', '.join(names)}")

    def reordered(self, names: Sequence[str]) -> "Cascade":
        """The same attacks in another order, by their names."""
        by_name = {attack.name: attack for attack in self.attacks}
        other = copy(self)
        other.attacks = tuple(by_name[name] for name in names)
        return other

    def in_precision(self, precision: str) -> "Cascade":
        """The same attacks with their passes in another precision."""
        other = copy(self)
        other.attacks = tuple(in_precision(each, precision) for each in self.attacks)
        return other

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
        for attack in self.attacks:
            # Before those in front of it have taken their time.
            if isinstance(attack, Particular):
                attack.check_shape(x)
        x_adv = x.detach().clone(memory_format=torch.contiguous_format)
        queries = torch.zeros_like(y)
        right, stages = torch.ones_like(y, dtype=torch.bool), []
        for name in self.names:
            alive = right.nonzero()[:, 0]
            rows = (column[alive] for column in (x, y, index))
            found, own = self.stage(name, model, *rows)
            x_adv[alive] = found.x_adv
            whole = _spread(own, alive, len(x))
            right, queries = right & ~whole.wrong, queries + whole.queries
            stages.append(whole)
        return Attacked(x_adv, queries), stages

    @property
    def names(self) -> tuple[str, ...]:
        """Of the stages: "clean", then the attacks in their order."""
        return (CLEAN, *(attack.name for attack in self.attacks))

    def stage(
        self, name: str, model: nn.Module, x: Tensor, y: Tensor, index: Tensor
    ) -> tuple[Attacked, Stage]:
        """One of `names` alone, on the images that those before it have left right.

        An image's outcome does not depend on the others of the call.

        Raises:
            UserError: if the inputs or the model's logits are not usable.
        """
        check_inputs(x, y, index)
        begin = time.perf_counter()
        with counted(model) as passes:
            if name == CLEAN:
                found = Attacked(x.detach().clone(), torch.ones_like(y))
            else:
                attack = self.attacks[self.names.index(name) - 1]
                found = attack.run(model, x, y, index)
            wrong = self._wrong(model, found.x_adv, y)
        seconds = time.perf_counter() - begin
        return found, Stage(name, wrong, found.queries, passes, seconds)

    def _wrong(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        """[N] bool, by calls of the attacks' own shape; of no image without one, since
        a model may fail on what is none."""
        if len(x) == 0:
            return torch.zeros_like(y, dtype=torch.bool)
        with borrowed(model) as classifier:
            asked = partial(_answers, classifier)
            (wrong,) = in_micro_batches(asked, x, y, size=self.micro_batch)
        return wrong


def _spread(stage: Stage, alive: Tensor, count: int) -> Stage:
    """What a stage did to some images, told of all `count`."""
    wrong = torch.zeros(count, dtype=torch.bool, device=alive.device)
    queries = torch.zeros(count, dtype=torch.int64, device=alive.device)
    wrong[alive], queries[alive] = stage.wrong, stage.queries
    return replace(stage, wrong=wrong, queries=queries)


def _answers(classifier: Classifier, x: Tensor, y: Tensor) -> tuple[Tensor]:
    return (misclassified(classifier.clean(x, y), y),)
