"""The Square Attack: random search by square windows, without gradients.

Andriushchenko et al. 2020, arXiv:1912.00049, Algorithm 1, on the margin of logits. From
the authors' code (fra31/auto-attack) are the rounding of windows' sides, the L1 form,
and that a sample is done as soon as the model is wrong. Ours is that places, signs and
patterns are drawn for each sample rather than once for a batch, and that windows reach
the last row and column of an image, as in the paper, not in the code.
"""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from rrl_dist.attacks.balls import L2, Ball, Linf, as_column
from rrl_dist.attacks.checks import check_counts
from rrl_dist.attacks.classifier import Classifier
from rrl_dist.attacks.draws import row_draws
from rrl_dist.attacks.l1 import L1
from rrl_dist.attacks.passes import Passes
from rrl_dist.attacks.precision import PRECISIONS, check_precision
from rrl_dist.attacks.result import Attacked
from rrl_dist.attacks.square_l1 import L1Proposals
from rrl_dist.attacks.square_l2 import L2Proposals
from rrl_dist.attacks.square_linf import LinfProposals
from rrl_dist.attacks.trial_attack import attack_in_trials
from rrl_dist.attacks.trials import Packing, Samples
from rrl_dist.attacks.walk import Walk
from rrl_dist.attacks.windows import Draw, Proposals, Sizes, halved
from rrl_dist.core.errors import UserError

# After how many proposals of 10,000 a window's area is halved: the paper's schedule as
# the authors' code has it.
HALVINGS, OF = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000), 10_000


def levels(made: Tensor, schedule: int) -> Tensor:
    """[M] int64 proposals made so far -> [M] how often the next window's area has been
    halved, where `schedule` proposals take the place of the paper's 10,000."""
    marks = torch.tensor(HALVINGS, device=made.device)
    return torch.bucketize(made * OF // schedule, marks)


@dataclass(frozen=True, kw_only=True)
class Square:
    """Random search by square windows.

    A sample is done at the first wrong image. One that stays right comes back as the
    tried image of largest margin.

    Attributes:
        ball: the threat model, `Linf`, `L2` or `L1`.
        queries: images that a trial tries at most, its first one included.
        schedule: number of queries over which windows shrink to the smallest. The
            paper's is 10,000, which AutoAttack keeps though it stops at 5,000; equal to
            `queries` it is what the authors' code calls a rescaled schedule.
        p_init: share of an image's pixels that the first windows cover, in (0, 1].
        restarts: trials of a sample, until one succeeds.
        seed: draws depend on (seed, name, sample, trial, step).
        micro_batch: images of every call of the model.
        in_turn: see `trials.Packing`; a success ends a trial all the same, as in the
            authors' code.
        precision: of the passes, see `rrl_dist.attacks.precision`.

    Raises:
        UserError: if a number is out of range, or the ball is of another norm.
    """

    ball: Ball
    queries: int
    schedule: int
    p_init: float
    restarts: int
    seed: int
    micro_batch: int
    in_turn: bool = False
    precision: str = PRECISIONS[0]

    def __post_init__(self) -> None:
        check_precision(self.precision)
        check_counts(
            queries=self.queries,
            schedule=self.schedule,
            restarts=self.restarts,
            micro_batch=self.micro_batch,
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
        self.check_shape(x)
        packing = Packing(self.micro_batch, self.in_turn)
        columns = (x, y, index)
        return attack_in_trials(self, model, columns, packing, self.precision)

    def check_shape(self, x: Tensor) -> None:
        """See `rrl_dist.attacks.result.Particular`."""
        if x.ndim != 4:
            raise UserError(
                f"square attacks images of shape {tuple(x.shape)}; "
                "give [images, channels, height, width], where windows have a place"
            )

    def trials(self, classes: int) -> int:
        """Of each sample, whatever the number of classes."""
        return self.restarts

    def cost(self, classes: int) -> Passes:
        """See `rrl_dist.attacks.passes.Costed`."""
        return Passes(1 + self.restarts * self.queries, 0)

    def begin(self, samples: Samples, number: Tensor) -> Walk:
        """See `trials.Method`."""
        proposals = _proposals(self.ball)
        frame = proposals.frame(samples.x)
        start = torch.zeros_like(number)
        draw = self._draw("start", samples.ids, number, start)
        return Walk.begin(samples, number, frame, proposals.first(frame, draw))

    def step(self, classifier: Classifier, state: Walk) -> Walk:
        """See `trials.Method`: one image is tried."""
        logits = classifier(state.visit)
        wrong = classifier.wrong(state.visit, logits, state.y)
        state = state.tried(logits, wrong, self.queries)
        return state._replace(visit=self._next(state))

    def step_ahead(
        self, classifier: Classifier, state: Walk, leader: Tensor, lead: Tensor
    ) -> Walk:
        """See `trials.LooksAhead`: rows try the windows that come next as long as none
        before them is kept."""
        begun = state.queries > 0
        state = state.rows(leader)
        state = state._replace(queries=state.queries + lead)
        follows = as_column(lead > 0, state.visit)
        visit = torch.where(follows, self._next(state), state.visit)
        state = state._replace(visit=visit)
        logits = classifier(visit)
        # Nothing is known of windows before the first image has been tried.
        counts = (lead == 0) | (begun[leader] & (state.queries < self.queries))
        wrong = classifier.wrong(state.visit, logits, state.y)
        state = state.tried_ahead(logits, wrong, counts, leader, lead, self.queries)
        return state._replace(visit=self._next(state))

    def _next(self, state: Walk) -> Tensor:
        """The image that is tried after so many queries."""
        draw = self._draw("window", state.ids, state.number, state.queries)
        proposals = _proposals(self.ball)
        sizes = self._sizes(proposals, state)
        return proposals.next(state.frame, state.best, sizes, draw)

    def _draw(self, purpose: str, ids: Tensor, number: Tensor, step: Tensor) -> Draw:
        return partial(row_draws, self.seed, self.name, purpose, ids, number, step)

    def _sizes(self, proposals: Proposals, state: Walk) -> Sizes:
        """Of the windows of the next proposals."""
        shares = halved(self.p_init, len(HALVINGS))
        height, width = state.best.shape[2:]
        sides = tuple(proposals.side(share, height, width) for share in shares)
        made = state.queries - 1  # proposals so far: the first image is none
        return Sizes(sides, levels(made, self.schedule))


def _proposals(ball: Ball) -> Proposals:
    """Of the ball's norm.

    Raises:
        UserError: if there are none.
    """
    if isinstance(ball, Linf):
        return LinfProposals(ball)
    if isinstance(ball, L2):
        return L2Proposals(ball)
    if isinstance(ball, L1):
        return L1Proposals(ball)
    raise UserError(
        f"square has no windows for the ball {ball.label()}; use linf|l2|l1"
    )
