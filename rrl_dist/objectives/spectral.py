"""Spectral regularization of the layers up to the features, around any objective.

Yang, Zavatone-Veth, Pehlevan, Spectral regularization for adversarially-robust
representation learning, arXiv:2405.17181. The objective is that of the authors' code
(the paper's own text could not be read; a factor 1/2 may be part of its weight):

    loss = base + weight * sum over layers of sigma_max(A_l)^2

A_l is the linear map that layer l is, as the network applies it; the authors change
every convolution to circular padding instead and take its Fourier transform. Norms and
biases are left as they are, and so are heads: what is kept is the representation.

With v the right singular vector of A and sigma = |A v|, the derivative of sigma^2 with
respect to A is 2 (A v) v^T, which is that of |A v|^2 with v fixed. So one power
iteration v <- A^T A v / |A^T A v| a step, from the vector of the step before, makes
|A v|^2 a lower bound of sigma^2 that follows the weights, and its gradient the
penalty's.
"""

import torch
from torch import Tensor

from rrl_dist.core.batch import Batch
from rrl_dist.core.errors import UserError
from rrl_dist.models.operators import Operator, operators
from rrl_dist.objectives.around import Around
from rrl_dist.objectives.objective import Objective, report
from rrl_dist.objectives.ramp import Ramp, check_weight


class Spectral(Around):
    """A base method's loss and the sum of squared spectral norms.

    Args:
        base: the method inside; any, one of labels too.
        weight: of the sum, >= 0. At 0 the sum is logged and nothing else changes.
        ramp: when the weight counts.
        scope: "features", the trained layers from the image to the features; or "all",
            every trained linear layer outside the encoder too, the paper's baseline.
        every: steps from one on which the penalty counts to the next, at least 1.
        warm_up: power iterations at the start, at least 1.
        image_size: in pixels; sigma of a convolution depends on it.

    Raises:
        UserError: a number out of its range, no trained layer, or one whose spectral
            norm is not known.
    """

    last_sum: Tensor

    def __init__(
        self,
        *,
        base: Objective,
        weight: float,
        ramp: Ramp,
        scope: str,
        every: int,
        warm_up: int,
        image_size: int,
    ) -> None:
        super().__init__(base)
        _check(weight=weight, scope=scope, every=every, warm_up=warm_up)
        self.reads_weights = True
        self.weight, self.ramp = weight, ramp
        self.scope, self.every = scope, every
        self.operators = regularized(base, scope=scope, image_size=image_size)
        for name, operator in self.operators.items():
            v = torch.randn(operator.shape).to(operator.layer.weight)
            self.register_buffer(_buffer(name), v / v.norm())
        # Of the last iteration; logged on steps that leave the penalty out.
        self.register_buffer("last_sum", torch.zeros(()))
        for _ in range(warm_up):
            self._iterate()

    def inner(self, batch: Batch) -> Batch:
        return self.base.inner(batch)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        terms = self.base(batch)
        counts = batch.step % self.every == 0
        weight = self.weight * self.ramp(batch.progress) if counts else 0.0
        with torch.set_grad_enabled(weight > 0 and torch.is_grad_enabled()):
            total = self._sum() if counts else self.last_sum.clone()
        return report(
            terms["loss"] + weight * total if weight else terms["loss"],
            {
                **self.base_terms(terms),
                "spectral_sum": total,
                "spectral_weight": torch.full_like(total, weight),
            },
        )

    def after_step(self, progress: float) -> None:
        self.base.after_step(progress)
        # With the weights that the next forward will see; on steps without the penalty
        # too, or the vectors would fall behind the weights.
        self._iterate()

    def vector(self, name: str) -> Tensor:
        """The unit vector of a layer of `operators`, of the shape of its input."""
        return self.get_buffer(_buffer(name))

    def _sum(self) -> Tensor:
        """Sum of |A v|^2, a scalar with gradient to the weights."""
        with torch.autocast(self.last_sum.device.type, enabled=False):
            squares = [
                operator(self.vector(name)).square().sum()
                for name, operator in self.operators.items()
            ]
        return torch.stack(squares).sum()

    @torch.no_grad()
    def _iterate(self) -> None:
        """One power iteration of every layer, alike on all workers."""
        sizes = []
        with torch.autocast(self.last_sum.device.type, enabled=False):
            for name, operator in self.operators.items():
                v = self.vector(name)
                product = operator.normal(operator.layer.weight, v)
                size = product.norm()
                # A layer of zeros has any vector; this one serves when it grows.
                v.copy_(torch.where(size > 0, product / size, v))
                sizes.append(size)
        # |A^T A v| lies between |A v|^2 and sigma^2.
        self.last_sum.copy_(torch.stack(sizes).sum())


def _buffer(name: str) -> str:
    """A layer's vector in the state dict; a buffer's name has no dots."""
    return "vector/" + name.replace(".", "/")


def _check(*, weight: float, scope: str, every: int, warm_up: int) -> None:
    check_weight(weight)
    if scope not in ("features", "all"):
        raise UserError(f"spectral has scope={scope}; choose features or all")
    for name, value in {"every": every, "warm_up": warm_up}.items():
        if value < 1:
            raise UserError(f"spectral has {name}={value}; set at least 1")


def regularized(base: Objective, *, scope: str, image_size: int) -> dict[str, Operator]:
    """The trained layers that `scope` names, by their names in the base.

    Raises:
        UserError: there is none, or one whose spectral norm is not known.
    """
    inside = operators(base.encoder, image_size=image_size)
    found = {f"encoder.{name}": operator for name, operator in inside.items()}
    if scope == "all":
        encoder = set(base.encoder.modules())
        found |= {
            name: Operator(module, (module.in_features,))
            for name, module in base.named_modules()
            if isinstance(module, torch.nn.Linear) and module not in encoder
        }
    trained = {k: o for k, o in found.items() if o.layer.weight.requires_grad}
    if not trained:
        raise UserError(
            "spectral has no trained layer up to the features; train the encoder "
            "(train_encoder=true), or set scope=all"
        )
    return trained
