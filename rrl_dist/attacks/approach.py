"""Where the fast adaptive boundary attack stands with each trial.

Croce and Hein 2020, arXiv:1907.02044, Algorithm 1.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from rrl_dist.attacks.balls import Ball, as_column
from rrl_dist.attacks.margins import logit_margin
from rrl_dist.attacks.trials import Samples


class Approach(NamedTuple):
    """All tensors have M rows.

    Attributes:
        center, y, target: clean image, label, and the class that is aimed at.
        x: from where the next step goes.
        steps: those taken.
        near, distance: the nearest wrong image visited, at any distance, and that;
            the clean image and inf as long as there is none.
        best, score, wrong, done, queries: see `trials.State`; `best` is the clean image
            as long as no wrong one is in the ball.
    """

    center: Tensor
    y: Tensor
    target: Tensor
    x: Tensor
    steps: Tensor
    near: Tensor
    distance: Tensor
    best: Tensor
    score: Tensor
    wrong: Tensor
    done: Tensor
    queries: Tensor

    @classmethod
    def begin(cls, samples: Samples, target: Tensor, x: Tensor) -> "Approach":
        """At the start x [M, ...], before its visit."""
        margin = logit_margin(samples.logits, samples.y)
        zero = torch.zeros_like(samples.y)
        no = torch.zeros_like(zero, dtype=torch.bool)
        return cls(
            center=samples.x,
            y=samples.y,
            target=target,
            x=x,
            steps=zero,
            near=samples.x,
            distance=torch.full_like(margin, torch.inf),
            best=samples.x,
            score=margin.nan_to_num(nan=-torch.inf),
            wrong=no,
            done=no,
            queries=zero,
        )

    def visited(self, logits: Tensor, wrong: Tensor, ball: Ball) -> "Approach":
        """After a visit of x, with its logits [M, K], and whether they are wrong."""
        distance = ball.distance(self.x, self.center)
        margin = logit_margin(logits, self.y).nan_to_num(nan=-torch.inf)
        nearer = wrong & (distance < self.distance)
        inside = nearer & (distance <= ball.eps)
        return self._replace(
            near=torch.where(as_column(nearer, self.x), self.x, self.near),
            distance=torch.where(nearer, distance, self.distance),
            best=torch.where(as_column(inside, self.x), self.x, self.best),
            score=torch.where(inside, margin, self.score),
            wrong=self.wrong | inside,
            queries=self.queries + 1,
        )
