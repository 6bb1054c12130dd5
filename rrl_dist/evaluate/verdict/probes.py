"""Small measurements on a few images that tell whether gradients lead an attack.

All of it is per image: what is found about one does not depend on the others, on the
worker or on how work is cut. Nothing is drawn but Square's windows, which belong to
(seed, sample).
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rrl_dist.attacks.ascent import value_and_gradient
from rrl_dist.attacks.balls import L2, Ball, Linf
from rrl_dist.attacks.l1 import L1
from rrl_dist.attacks.margins import cross_entropy, misclassified
from rrl_dist.attacks.micro_batches import in_micro_batches
from rrl_dist.attacks.passes import counted
from rrl_dist.attacks.projected_gradient import PGD
from rrl_dist.attacks.square import Square
from rrl_dist.core.modes import evaluating, frozen

# Of PGD-20 in configs/attack/pgd20.yaml, the attack of most tables.
STEPS, RELATIVE_STEP = 20, 0.25
# Square's, with windows that shrink to the smallest within them.
QUERIES, P_INIT = 100, 0.8
RADII = 3  # above the ball's


@dataclass(frozen=True)
class Probes:
    """What was measured of N images, of which R are right themselves.

    Attributes:
        index: [N], the samples.
        right: [N], whether the answer to the image itself is right.
        change: the largest change of a logit between two calls on the same images, over
            the gap from the image's smallest logit to its largest.
        smallest: of all logits.
        largest: of all logits.
        sums: how far the rows' sums lie apart, over the largest of them.
        differentiable: whether logits have a gradient to the images at all. Without,
            nothing below but `square` is measured, and is empty.
        still: [R], whether the cross-entropy's gradient is 0 in all pixels.
        clean: [R] cross-entropy of the image, nats.
        one: [R] after one step as long as the radius.
        many: [R] the largest within `STEPS` steps of PGD.
        radii: growing, of the balls of `growing`; the last holds all images there are.
        left: [R], how many of these radii PGD went without breaking the image.
        square: [R], whether Square broke the image; None where it was not asked.
        forward: images that went through the model.
        backward: gradients that came back.
    """

    index: list[int]
    right: list[bool]
    change: float
    smallest: float
    largest: float
    sums: float
    differentiable: bool
    still: list[bool]
    clean: list[float]
    one: list[float]
    many: list[float]
    radii: list[float]
    left: list[int]
    square: list[bool] | None
    forward: int = 0
    backward: int = 0

    def as_dict(self) -> dict[str, Any]:
        """As JSON; `Probes(**...)` restores it."""
        return asdict(self)


@dataclass(frozen=True)
class Prober:
    """Measures `Probes`.

    Attributes:
        model: images [N, 3, H, W] in [0, 1] -> logits [N, K].
        ball: the threat model, eps > 0.
        seed: of Square.
        size: images of every call of the model.
        square: whether Square is to be asked.
    """

    model: nn.Module
    ball: Ball
    seed: int
    size: int
    square: bool

    def measure(self, x: Tensor, y: Tensor, index: Tensor) -> Probes:
        """x: [N, 3, H, W] in [0, 1], y and index: [N] int64.

        Raises:
            UserError: the model's logits are not usable.
        """
        with counted(self.model) as passes:
            with _borrowed(self.model):
                first, second, with_graph = self._logits(x)
            right = ~misclassified(first, y)
            rows = x[right], y[right], index[right]
            found = self._of_gradients(*rows) if with_graph else _nothing()
            broken = self._by_square(*rows)
        gap = (first.amax(1) - first.amin(1)).clamp_min(1e-12)
        sums = first.sum(1)
        far = float(sums.amax() - sums.amin())
        return Probes(
            index=index.tolist(),
            right=right.tolist(),
            change=float(((second - first).abs().amax(1) / gap).max()),
            smallest=float(first.min()),
            largest=float(first.max()),
            sums=far / max(float(sums.abs().max()), 1e-12),
            differentiable=with_graph,
            square=broken,
            forward=passes.forward,
            backward=passes.backward,
            **found,
        )

    def _logits(self, x: Tensor) -> tuple[Tensor, Tensor, bool]:
        """[N, K] of two calls on the same images, and whether they have a graph."""

        def ask(x: Tensor) -> tuple[Tensor]:
            return (_finite(self.model(x).float()),)

        (first,), (second,) = (
            in_micro_batches(ask, x, size=self.size) for _ in range(2)
        )
        with torch.enable_grad():
            (again,) = in_micro_batches(
                lambda x: (self.model(x.requires_grad_()),), x[:1], size=self.size
            )
        return first, second, again.requires_grad

    def _of_gradients(self, x: Tensor, y: Tensor, index: Tensor) -> dict[str, Any]:
        with _borrowed(self.model):
            columns = in_micro_batches(self._climb, x, y, size=self.size)
        still, clean, one, many = (column.tolist() for column in columns)
        radii, left = self._widen(x, y, index)
        return {
            "still": still,
            "clean": clean,
            "one": one,
            "many": many,
            "radii": radii,
            "left": left,
        }

    def _climb(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """One micro-batch from the images themselves: a start drawn at random would
        move what no gradient does."""

        def loss(x: Tensor) -> Tensor:
            return _finite(cross_entropy(self.model(x).float(), y))

        clean, grad = value_and_gradient(loss, x)
        still = (grad == 0).flatten(1).all(1)
        one = loss(self._moved(x, grad, x, self.ball.eps))
        at, many, length = x, clean, RELATIVE_STEP * self.ball.eps
        for _ in range(STEPS):
            at = self._moved(at, grad, x, length)
            value, grad = value_and_gradient(loss, at)
            many = torch.maximum(many, value)
        return still, clean, one, many

    def _moved(self, x: Tensor, grad: Tensor, center: Tensor, length: float) -> Tensor:
        return self.ball.project(x + length * self.ball.steepest(grad), center)

    def _widen(
        self, x: Tensor, y: Tensor, index: Tensor
    ) -> tuple[list[float], list[int]]:
        """PGD at growing radii, each on what the ones before have left right."""
        left, alive = torch.zeros_like(y), torch.arange(len(y), device=y.device)
        balls = growing(self.ball, pixels=x[0].numel())
        for ball in balls:
            attack = PGD(
                ball=ball,
                steps=STEPS,
                relative_step=RELATIVE_STEP,
                restarts=1,
                random_start=False,
                seed=self.seed,
                micro_batch=self.size,
            )
            rows = [column[alive] for column in (x, y, index)]
            right = ~self._wrong(attack(self.model, *rows), rows[1])
            alive = alive[right]
            left[alive] += 1
        return [ball.eps for ball in balls], left.tolist()

    def _by_square(self, x: Tensor, y: Tensor, index: Tensor) -> list[bool] | None:
        if not self.square or not isinstance(self.ball, Linf | L2 | L1):
            return None
        attack = Square(
            ball=self.ball,
            queries=QUERIES,
            schedule=QUERIES,
            p_init=P_INIT,
            restarts=1,
            seed=self.seed,
            micro_batch=self.size,
        )
        found: list[bool] = self._wrong(attack(self.model, x, y, index), y).tolist()
        return found

    def _wrong(self, x: Tensor, y: Tensor) -> Tensor:
        """[N] bool, by calls of the attacks' own shape."""
        if len(x) == 0:
            return torch.zeros_like(y, dtype=torch.bool)
        with _borrowed(self.model):
            ask = partial(_answered_wrong, self.model)
            return in_micro_batches(ask, x, y, size=self.size)[0]


def growing(ball: Ball, *, pixels: int) -> list[Ball]:
    """Balls whose radii grow evenly in their logarithm, up to one that holds every
    image in [0, 1]; none in a norm that is not known.

    An L1 ball is followed by those of L2, from the one that fits into it: in L1 a step
    changes one pixel, and so many images are not reached within the steps.
    """
    root = math.sqrt(pixels)
    if isinstance(ball, L1):
        ball = L2(ball.eps / root)
    whole = {"linf": 1.0, "l2": root}.get(ball.norm)
    if whole is None or ball.eps >= whole:
        return []
    factors = [(whole / ball.eps) ** (k / RADII) for k in range(1, RADII)]
    return [ball.with_eps(eps) for eps in (*(ball.eps * f for f in factors), whole)]


def work_of_probes(*, square: bool) -> int:
    """Forward passes, or what takes as long, of an image that stays right."""
    radius = 2 * STEPS + 3  # PGD, and the answer to what it has made
    return 5 + 2 * STEPS + RADII * radius + (QUERIES + 2 if square else 0)


def _answered_wrong(model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor]:
    return (misclassified(model(x).float(), y),)


def _finite(values: Tensor) -> Tensor:
    """NaN as 0, and infinities as the ends of float32, which JSON can tell."""
    return values.nan_to_num(nan=0.0)


def _nothing() -> dict[str, Any]:
    empty = ("still", "clean", "one", "many", "radii", "left")
    return {name: [] for name in empty}


@contextmanager
def _borrowed(model: nn.Module) -> Iterator[None]:
    """In eval mode without parameter gradients, and no graph unless it is asked for.

    Not the attacks' own, which refuses a model without a gradient: here that is what is
    to be found out.
    """
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        frozen(model),
        evaluating(model),
    ):
        yield
