"""Worst-case mutual information: what the representation keeps of attacked images.

Zhu, Zhang, Evans, Learning adversarially robust representations via worst-case mutual
information maximization, ICML 2020, arXiv:2002.11798. The representation vulnerability
of an encoder g is RV = I(X; g(X)) - min over X' of I(X'; g(X')), X' in the ball around
X. The principle is to maximize I(X; g(X)) - weight * RV, which is

    (1 - weight) I(X; g(X)) + weight min over X' of I(X'; g(X'))

and at weight 1, the authors', the worst case alone. The form with two terms is our
derivation. I is an estimate of `mutual_information`, of places of the image and the
representation, by two critics that are trained along. X' is found by projected gradient
descent on the same estimate; it couples the images of the global batch, so all of them
move together, on all workers. From the authors' released code, since the paper could
not be read in full.

That code's attack begins at the clean image, does not follow the gradient through the
image's own embedding, which the estimate depends on too, and keeps the iterate at which
the whole batch's estimate is lowest. Here it begins at a random point, follows both,
and keeps the last. `faithful` is theirs, the masks of the estimate included.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from rrl_dist.attacks.ascent import Value, ascend, check_attack, value_and_gradient
from rrl_dist.attacks.balls import Ball
from rrl_dist.core.batch import Batch
from rrl_dist.core.errors import UserError
from rrl_dist.core.modes import evaluating, frozen
from rrl_dist.objectives.mutual_information import check_estimator, estimate
from rrl_dist.objectives.objective import Objective, report, width_of


class WorstCaseMI(Objective):
    """Maximal mutual information under the worst perturbation.

    Args:
        encoder: trained.
        local: builds the critic of images' places, [N, 3, H, W] -> [N, E, L], from the
            `embedding`.
        whole: builds the critic of representations, [N, D] -> [N, E], from D and the
            `embedding`.
        embedding: E, dimensions in which the two are compared.
        estimator: "dv", "nce" or "jsd".
        weight: of the worst case, in [0, 1]; the rest is that of clean images. At 0,
            and in a ball of radius 0, nothing is attacked: ordinary maximization of
            mutual information.
        faithful: whether attack and estimate are the released code's, defects included.
        ball: threat model, in [0, 1] pixels.
        steps: of the inner PGD.
        relative_step: step size of the inner PGD as a share of the ball's radius.
        seed: of the random starts.

    Raises:
        UserError: there is no such estimator, or a number is out of its range.
    """

    views = 1

    def __init__(
        self,
        *,
        encoder: nn.Module,
        local: Callable[..., nn.Module],
        whole: Callable[..., nn.Module],
        embedding: int,
        estimator: str,
        weight: float,
        faithful: bool,
        ball: Ball,
        steps: int,
        relative_step: float,
        seed: int,
    ) -> None:
        super().__init__()
        check_estimator(estimator)
        check_attack(steps=steps, relative_step=relative_step)
        if not 0 <= weight <= 1:
            raise UserError(
                f"objective.weight={weight}; set 0 (clean images) to 1 (attacked ones)"
            )
        self.encoder = encoder
        self.local = local(embedding=embedding)
        self.whole = whole(width_of(encoder, "num_features"), embedding=embedding)
        self.estimate = partial(estimate, estimator=estimator, faithful=faithful)
        self.faithful, self.ball = faithful, ball
        self.weight = 0.0 if ball.eps == 0 else weight
        self.steps, self.seed = steps, seed
        self.step_size = relative_step * ball.eps

    def inner(self, batch: Batch) -> Batch:
        if self.weight == 0:
            return batch
        x = batch.views[0]
        with evaluating(self), frozen(self):
            x_adv = self._as_released(x) if self.faithful else self._worst(x, batch)
        return batch.with_extras(worst_case_mi_x=x_adv)

    def _worst(self, x: Tensor, batch: Batch) -> Tensor:
        key = ("worst_case_mi", batch.step)
        return ascend(
            lambda moved: self._falling(moved, moved),
            self.ball.start(x, seed=self.seed, key=key, index=batch.index),
            x,
            ball=self.ball,
            steps=self.steps,
            step_size=self.step_size,
        )

    def _as_released(self, x: Tensor) -> Tensor:
        return highest(
            lambda moved: self._falling(moved, moved.detach()),
            x,
            ball=self.ball,
            steps=self.steps,
            step_size=self.step_size,
        )

    def _falling(self, x: Tensor, shown: Tensor) -> Tensor:
        """What the attack raises; `shown` is what the local critic sees of x."""
        # A mean over images, whose gradient to one would vanish in half precision.
        return -len(x) * self._information(self.encoder(x), shown)

    def _information(self, h: Tensor, x: Tensor) -> Tensor:
        """Of images [N, 3, H, W] and their representations [N, D], in nats."""
        value: Tensor = self.estimate(self.local(x), self.whole(h))
        return value

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        shown = {}
        if self.weight < 1:
            shown["mi"] = batch.views[0]
        if self.weight > 0:
            shown["mi_worst"] = batch.extras["worst_case_mi_x"]
        # One pass for both kinds of images: batch norms see all of them.
        x = torch.cat(list(shown.values()))
        places = self.local(x).chunk(len(shown))
        representations = self.whole(self.encoder(x)).chunk(len(shown))
        found = map(self.estimate, places, representations)
        terms = dict(zip(shown, found, strict=True))
        shares = {"mi": 1 - self.weight, "mi_worst": self.weight}
        loss = -torch.stack([shares[name] * mi for name, mi in terms.items()]).sum()
        return report(loss, terms)


def highest(
    value: Value, center: Tensor, *, ball: Ball, steps: int, step_size: float
) -> Tensor:
    """Projected ascent from the centre, giving back the iterate of the highest value.

    Args:
        value: [N, ...] images -> scalar to raise, the same on every worker, so that all
            keep the same iterate. It is called `steps` + 1 times.
        center: [N, ...] in [0, 1], the clean images; one of the iterates.
        ball, steps, step_size: as for `ascend`.
    """
    x = best = center.detach()
    top = torch.full((), -torch.inf, device=x.device)
    for _ in range(steps):
        reached, grad = value_and_gradient(value, x)
        best, top = _higher(reached, x, top, best)
        x = ball.project(x + step_size * ball.steepest(grad), center.detach())
    with torch.no_grad():
        return _higher(value(x), x, top, best)[0]


def _higher(
    reached: Tensor, x: Tensor, top: Tensor, best: Tensor
) -> tuple[Tensor, ...]:
    """Images and value, of the two that are given the higher."""
    return torch.where(reached > top, x, best), torch.maximum(reached, top)
