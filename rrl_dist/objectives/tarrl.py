"""TARRL: any objective, and the worst distance that an attack moves a feature.

After Nguyen, Lim, Torr, Task-Agnostic Robust Representation Learning, arXiv:2203.07596:
the adversarial loss of any downstream predictor is bounded by its clean loss and a
regularizer that knows neither task nor labels. The paper's own form of the regularizer
could not be read; what follows is our derivation.

Let f be the encoder, g(h) = W h + b a linear head, l the cross-entropy, and B(x) the
ball. The gradient of l with respect to the logits is p - e_y, of length at most
sqrt(2), so l(g(.), y) changes by at most sqrt(2) ||W||_2 for each unit that h moves:

    max_B l(g(f(x')), y) <= l(g(f(x)), y) + sqrt(2) ||W||_2 max_B ||f(x') - f(x)||

The last factor, averaged over images, is R(f). It is what is trained away here, on top
of a base method's loss:

    loss = base + weight * mean over images of max_B D(f(x'), f(x))

R(f) itself falls when features shrink and ||W||_2 then grows, so D is a distance that
does not: `distances` has `l2` (R(f) over the features' spread), `cosine` and `kl`. The
inner maximization is projected gradient ascent on D from a random start, since the
gradient of D is zero at x' = x. x is the first view; both pass the encoder together.
"""

import torch
from torch import Tensor

from rrl_dist.attacks.ascent import ascend, check_attack
from rrl_dist.attacks.balls import Ball
from rrl_dist.core.batch import Batch
from rrl_dist.core.collectives import all_mean
from rrl_dist.core.modes import evaluating, frozen
from rrl_dist.objectives.around import Around
from rrl_dist.objectives.distances import distance_of, feature_scale
from rrl_dist.objectives.objective import Objective, report
from rrl_dist.objectives.ramp import Ramp, check_weight


class TARRL(Around):
    """A base method's loss and the worst-case feature distance.

    Args:
        base: the method inside; its encoder is what the attack moves.
        weight: of the distance, >= 0; at 0 this is the base, and nothing else is done.
        ramp: when the weight counts.
        distance: "l2", "cosine" or "kl".
        ball: threat model, in [0, 1] pixels.
        steps: of the inner ascent.
        relative_step: step size of the inner ascent as a share of the ball's radius.
        seed: of the random starts.

    Raises:
        UserError: there is no such distance.
    """

    def __init__(
        self,
        *,
        base: Objective,
        weight: float,
        ramp: Ramp,
        distance: str,
        ball: Ball,
        steps: int,
        relative_step: float,
        seed: int,
    ) -> None:
        super().__init__(base)
        check_weight(weight)
        check_attack(steps=steps, relative_step=relative_step)
        self.weight, self.ramp, self.ball = weight, ramp, ball
        self.distance = distance_of(distance)
        self.steps, self.seed = steps, seed
        self.step_size = relative_step * ball.eps

    def inner(self, batch: Batch) -> Batch:
        if self.weight == 0:
            return self.base.inner(batch)
        # The base may replace its first view; the distance is from the original.
        x = batch.views[0]
        return self.base.inner(batch).with_extras(
            tarrl_x=x, tarrl_moved=self._moved(x, batch)
        )

    def _moved(self, x: Tensor, batch: Batch) -> Tensor:
        """The images in the ball whose features are furthest from x's."""
        with evaluating(self.encoder), frozen(self.encoder):
            with torch.no_grad():
                h = self.encoder(x)
                scale = feature_scale(h)
            start = self.ball.start(
                x, seed=self.seed, key=("tarrl", batch.step), index=batch.index
            )
            return ascend(
                lambda moved: self.distance(self.encoder(moved), h, scale),
                start,
                x,
                ball=self.ball,
                steps=self.steps,
                step_size=self.step_size,
            )

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        terms = self.base(batch)
        if self.weight == 0:
            return report(terms["loss"], self.base_terms(terms))
        both = torch.cat([batch.extras["tarrl_x"], batch.extras["tarrl_moved"]])
        h, moved = self.encoder(both).chunk(2)
        distance = all_mean(self.distance(moved, h, feature_scale(h)).mean())
        weight = self.weight * self.ramp(batch.progress)
        return report(
            terms["loss"] + weight * distance,
            {
                **self.base_terms(terms),
                "tarrl_distance": distance,
                "tarrl_weight": torch.full_like(distance, weight),
            },
        )

    def after_step(self, progress: float) -> None:
        self.base.after_step(progress)
