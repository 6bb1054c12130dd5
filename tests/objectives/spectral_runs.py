"""Small objectives with a spectral penalty, and some steps of them."""

import math
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from rrl_dist.core.batch import Batch
from rrl_dist.core.modes import evaluating
from rrl_dist.models.encoder import Encoder
from rrl_dist.objectives.objective import Objective
from rrl_dist.objectives.ramp import Ramp
from rrl_dist.objectives.spectral import Spectral
from rrl_dist.training.loop import after_step
from rrl_dist.training.optim import parameter_groups, set_learning_rate, sgd
from tests.objectives.harness import SIZE, own_batch
from tests.objectives.labelling import labelled
from tests.training.strategies import CPU, made

SPAN = 10  # steps of a run
LAYERS = 5  # convolutions of the small encoder


def around(
    base: Objective, *, ramp: tuple[float, float] = (0.0, 1.0), **settings: Any
) -> Spectral:
    """A penalty with settings of its own; on every step, if not told otherwise."""
    torch.manual_seed(4)
    given = {"weight": 0.1, "scope": "features", "every": 1, "warm_up": 20}
    return Spectral(
        base=base,
        ramp=Ramp(start=ramp[0], end=ramp[1]),
        image_size=SIZE,
        **{**given, **settings},
    )


def trained(
    objective: Objective, *, steps: int, start: int = 0
) -> tuple[list[float], dict[str, Tensor]]:
    """Losses of steps of plain SGD on one pair of views, and the state then."""
    objective.train()
    optimizer = torch.optim.SGD(objective.parameters(), lr=0.1)
    losses = []
    for step in range(start, start + steps):
        optimizer.zero_grad()
        terms = objective(at_step(own_batch("simclr"), step))
        terms["loss"].backward()
        optimizer.step()
        objective.after_step((step + 1) / SPAN)
        losses.append(float(terms["loss"].detach()))
    return losses, deepcopy(objective.state_dict())


def at_step(batch: Batch, step: int) -> Batch:
    """The batch as the loop gives it at a step of a run of `SPAN`."""
    progress = min(step / SPAN, 1.0)
    return Batch(batch.images, batch.views, batch.labels, batch.index, step, progress)


def vectors(objective: Spectral) -> dict[str, Tensor]:
    """Of a state dict, by their names in it."""
    state = objective.state_dict()
    return {k: v for k, v in state.items() if k.startswith("vector/")}


class _Biased(nn.Module):
    """A grouped and a strided convolution and a linear layer, with biases."""

    num_features = 5

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1, groups=3),
            nn.ReLU(),
            nn.Conv2d(6, 4, 3, stride=2, padding=1, padding_mode="circular"),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(4 * (SIZE // 2) ** 2, 5),
        )

    def forward(self, x: Tensor) -> Any:
        return self.layers(x)


def matrices(encoder: Encoder) -> list[Tensor]:
    """Of every convolution, [outputs, inputs]: its images of unit vectors, in graph."""
    shapes: list[tuple[nn.Conv2d, torch.Size]] = []
    convolutions = [m for m in encoder.modules() if isinstance(m, nn.Conv2d)]
    hooks = [
        m.register_forward_pre_hook(lambda m, args: shapes.append((m, args[0].shape)))
        for m in convolutions
    ]
    with evaluating(encoder):
        encoder(torch.zeros(1, 3, SIZE, SIZE))
    for hook in hooks:
        hook.remove()
    found = []
    for layer, (_, *shape) in shapes:
        units = torch.eye(math.prod(shape)).view(-1, *shape)
        found.append(layer(units).flatten(1).T)
    assert len(found) == LAYERS
    return found


def exact_sum(encoder: Encoder) -> Tensor:
    """Sum of squared largest singular values, with gradient."""
    squares = [torch.linalg.svdvals(a)[0].square() for a in matrices(encoder)]
    return torch.stack(squares).sum()


def encoder_of(objective: Objective) -> Encoder:
    """For the type checker."""
    assert isinstance(objective.encoder, Encoder)
    return objective.encoder


def losses_and_weights(kind: str, every: int) -> tuple[list[float], dict[str, Tensor]]:
    """Of 5 steps of SGD under a strategy, on this worker's share."""
    torch.manual_seed(1)
    encoder = Encoder(backbone=_Biased(), mean=[0.5] * 3, std=[0.2] * 3, sync_bn=False)
    base = labelled("supervised", encoder)
    objective = around(base, weight=0.05, every=every).train()
    groups = parameter_groups(objective, weight_decay=1e-3, decay_norm_and_bias=False)
    optimizer = sgd(groups, momentum=0.9, nesterov=False)
    strategy = made(kind)
    strategy.wrap(objective, optimizer, CPU)
    set_learning_rate(optimizer, 0.1)
    losses = []
    for step in range(5):
        batch = objective.inner(at_step(own_batch("supervised"), step))
        terms = strategy.forward(batch)
        strategy.update(terms["loss"])
        after_step(objective, strategy, (step + 1) / SPAN)
        losses.append(float(terms["loss"].detach()))
    with strategy.gathered():
        state = objective.state_dict()
        return losses, {k: v.detach().clone() for k, v in state.items()}
