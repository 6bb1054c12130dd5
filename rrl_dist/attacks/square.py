"""The Square Attack: random search by square windows, without gradients.

Andriushchenko et al. 2020, arXiv:1912.00049, Algorithm 1, on the margin of logits. Two
details are the authors' code's (fra31/auto-attack): the rounding of windows' sides, and
that a sample is done as soon as the model is wrong. Ours is that places, signs and
patterns are drawn for each sample rather than once for a batch, and that windows reach
the last row and column of an image, as in the paper, not in the code.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rrl_dist.attacks.balls import L2, Ball, Linf, as_column
from rrl_dist.attacks.checks import check_counts
from rrl_dist.attacks.classifier import Classifier
from rrl_dist.attacks.draws import row_draws
from rrl_dist.attacks.margins import logit_margin, misclassified
from rrl_dist.attacks.result import Attacked
from rrl_dist.attacks.square_l2 import L2Proposals
from rrl_dist.attacks.square_linf import LinfProposals
from rrl_dist.attacks.trial_attack import attack_in_trials
from rrl_dist.attacks.trials import Packing, Samples
from rrl_dist.attacks.windows import Draw, Proposals, Sizes, halved
from rrl_dist.core.errors import UserError

# After how many proposals of 10,000 a window's area is halved, for other budgets in
# proportion: the paper's schedule as the authors' code has it.
HALVINGS, OF = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000), 10_000


def levels(made: Tensor, queries: int) -> Tensor:
    """[M] int64 proposals made so far, of `queries` -> [M] how often the next window's
    area has been halved."""
    marks = torch.tensor(HALVINGS, device=made.device)
    return torch.bucketize(made * OF // queries, marks)


class Walk(NamedTuple):
    """Where each trial's search stands; all tensors have M rows.

    Attributes:
        y, ids, number: label, sample and trial.
        frame: what proposals are made from, see `windows.Proposals`.
        visit: the image that is tried next.
        best, score, wrong, done, queries: see `trials.State`; `score` is the margin of
            logits at `best`.
    """

    y: Tensor
    ids: Tensor
    number: Tensor
    frame: Tensor
    visit: Tensor
    best: Tensor
    score: Tensor
    wrong: Tensor
    done: Tensor
    queries: Tensor

    @classmethod
    def begin(
        cls, samples: Samples, number: Tensor, frame: Tensor, visit: Tensor
    ) -> "Walk":
        """Before the first image, `visit`, is tried."""
        no = torch.zeros_like(samples.y, dtype=torch.bool)
        return cls(
            y=samples.y,
            ids=samples.ids,
            number=number,
            frame=frame,
            visit=visit,
            best=samples.x,
            score=torch.full(no.shape, -torch.inf, device=no.device),
            wrong=no,
            done=no,
            queries=torch.zeros_like(samples.y),
        )

    def tried(self, logits: Tensor, budget: int) -> "Walk":
        """After `visit` gave these logits [M, K], of `budget` queries in all: it is
        kept where its margin is larger or the model is wrong."""
        score = logit_margin(logits, self.y).nan_to_num(nan=-torch.inf)
        found = misclassified(logits, self.y) & ~self.done
        better = found | ((score > self.score) & ~self.done)
        wrong, queries = self.wrong | found, self.queries + ~self.done
        return self._replace(
            best=torch.where(as_column(better, self.best), self.visit, self.best),
            score=torch.where(better, score, self.score),
            wrong=wrong,
            done=wrong | (queries >= budget),
            queries=queries,
        )


@dataclass(frozen=True, kw_only=True)
class Square:
    """Random search by square windows.

    A sample is done at the first wrong image. One that stays right comes back as the
    tried image of largest margin.

    Attributes:
        ball: the threat model, `Linf` or `L2`.
        queries: images that a trial tries at most, its first one included.
        p_init: share of an image's pixels that the first windows cover, in (0, 1].
        restarts: trials of a sample, until one succeeds.
        seed: draws depend on (seed, name, sample, trial, step).
        micro_batch: images of every call of the model.
        in_turn: see `trials.Packing`; a success ends a trial all the same, as in the
            authors' code.

    Raises:
        UserError: if a number is out of range, or the ball is of another norm.
    """

    ball: Ball
    queries: int
    p_init: float
    restarts: int
    seed: int
    micro_batch: int
    in_turn: bool = False

    def __post_init__(self) -> None:
        check_counts(
            queries=self.queries, restarts=self.restarts, micro_batch=self.micro_batch
        )
        if not 0 < self.p_init <= 1:
            raise UserError(f"square has p_init={self.p_init}; set it in (0, 1]")
        _proposals(self.ball)

    @property
    def name(self) -> str:
        """Its name in AutoAttack."""
        return "square"

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, index: Tensor | None = None
    ) -> Tensor:
        """As `run`, the images alone."""
        return self.run(model, x, y, index).x_adv

    def run(
        self, model: nn.Module, x: Tensor, y: Tensor, index: Tensor | None = None
    ) -> Attacked:
        """See `rrl_dist.attacks.result.Attack.run`; images are [N, C, H, W]."""
        if x.ndim != 4:
            raise UserError(
                f"square attacks images of shape {tuple(x.shape)}; "
                "give [images, channels, height, width], where windows have a place"
            )
        packing = Packing(self.micro_batch, self.in_turn)
        return attack_in_trials(self, model, (x, y, index), packing)

    def trials(self, classes: int) -> int:
        """Of each sample, whatever the number of classes."""
        return self.restarts

    def begin(self, samples: Samples, number: Tensor) -> Walk:
        """See `trials.Method`."""
        proposals = _proposals(self.ball)
        frame = proposals.frame(samples.x)
        start = torch.zeros_like(number)
        draw = self._draw("start", samples.ids, number, start)
        return Walk.begin(samples, number, frame, proposals.first(frame, draw))

    def step(self, classifier: Classifier, state: Walk) -> Walk:
        """See `trials.Method`: one image is tried."""
        state = state.tried(classifier(state.visit), self.queries)
        draw = self._draw("window", state.ids, state.number, state.queries)
        proposals = _proposals(self.ball)
        sizes = self._sizes(proposals, state)
        visit = proposals.next(state.frame, state.best, sizes, draw)
        return state._replace(visit=visit)

    def _draw(self, purpose: str, ids: Tensor, number: Tensor, step: Tensor) -> Draw:
        return partial(row_draws, self.seed, self.name, purpose, ids, number, step)

    def _sizes(self, proposals: Proposals, state: Walk) -> Sizes:
        """Of the windows of the next proposals."""
        shares = halved(self.p_init, len(HALVINGS))
        height, width = state.best.shape[2:]
        sides = tuple(proposals.side(share, height, width) for share in shares)
        made = state.queries - 1  # proposals so far: the first image is none
        return Sizes(sides, levels(made, self.queries))


def _proposals(ball: Ball) -> Proposals:
    """Of the ball's norm.

    Raises:
        UserError: if there are none.
    """
    if isinstance(ball, Linf):
        return LinfProposals(ball)
    if isinstance(ball, L2):
        return L2Proposals(ball)
    raise UserError(f"square has no windows for the ball {ball.label()}; use linf|l2")
