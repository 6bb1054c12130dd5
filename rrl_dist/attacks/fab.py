"""Fast adaptive boundary attack: projections onto the linearized decision boundary.

Croce and Hein 2020, arXiv:1907.02044, Algorithm 1, as AutoAttack runs it. It looks for
the nearest image that the model gets wrong: the model is replaced by its tangent, whose
boundary is a hyperplane, and the iterate moves onto the hyperplane and a little beyond,
drawn towards the point of it that is nearest to the clean image. From a wrong image it
steps back towards the clean one.

The paper ends with a search along the line to the clean image, which AutoAttack leaves
out. Ours ends with a step from the point of the ball that is next to the nearest wrong
image: whether a sample is broken is all that such a search could change.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial, reduce

import torch
from torch import Tensor, nn

from rrl_dist.attacks.approach import Approach
from rrl_dist.attacks.balls import Ball, as_column
from rrl_dist.attacks.checks import check_counts, check_inputs
from rrl_dist.attacks.classifier import Classifier, borrowed
from rrl_dist.attacks.hyperplane import DUAL_ORDER, Hyperplane
from rrl_dist.attacks.margins import misclassified, ranked_class
from rrl_dist.attacks.micro_batches import in_micro_batches
from rrl_dist.attacks.passes import Passes
from rrl_dist.attacks.precision import PRECISIONS, check_precision
from rrl_dist.attacks.result import Attacked
from rrl_dist.attacks.trial_attack import attack_in_trials
from rrl_dist.attacks.trials import Packing, Samples
from rrl_dist.core.errors import UserError

SHORTEST = 1e-8  # of two ways, so that the share of one is defined; the authors' code


@dataclass(frozen=True, kw_only=True)
class FAB:
    """Minimizes the distance of a wrong image; a sample is broken if it is in the ball.

    A sample that is not broken comes back as it was. The first restart begins at the
    clean image, others at a random one half the radius away.

    Attributes:
        ball: the threat model; its norm is what is minimized.
        steps: of a trial, with a gradient and two forward passes each; the last one,
            from inside the ball, is not counted.
        restarts: trials of a sample, and of each of its targets, until one succeeds.
        targets: classes that are aimed at one by one, those that come next in the clean
            logits, at most all but the label; or null: each step aims at the class
            whose boundary is nearest, at the price of a gradient for every class.
        alpha_max: largest share of the way that starts from the clean image, in [0, 1].
        eta: how far beyond the hyperplane, 1 for onto it, >= 1.
        beta: share of its distance that a wrong image keeps in a step back, in (0, 1).
        seed: draws depend on (seed, name, trial, sample).
        micro_batch: images of every call of the model.
        in_turn: see `trials.Packing`.
        precision: of the passes, see `rrl_dist.attacks.precision`.

    Raises:
        UserError: if a number is out of range, or the norm is none that it knows.
    """

    ball: Ball
    steps: int
    restarts: int
    targets: int | None
    alpha_max: float
    eta: float
    beta: float
    seed: int
    micro_batch: int
    in_turn: bool = False
    precision: str = PRECISIONS[0]

    def __post_init__(self) -> None:
        check_precision(self.precision)
        check_counts(
            steps=self.steps,
            restarts=self.restarts,
            targets=1 if self.targets is None else self.targets,
            micro_batch=self.micro_batch,
        )
        wanted = {
            "alpha_max": (self.alpha_max, 0 <= self.alpha_max <= 1, "in [0, 1]"),
            "eta": (self.eta, 1 <= self.eta < torch.inf, "to 1 or more"),
            "beta": (self.beta, 0 < self.beta < 1, "in (0, 1)"),
        }
        for name, (value, fits, range_) in wanted.items():
            if not fits:
                raise UserError(f"fab has {name}={value}; set it {range_}")
        if self.ball.norm not in DUAL_ORDER:
            raise UserError(
                f"fab knows no norm {self.ball.norm}; choose {'|'.join(DUAL_ORDER)}"
            )

    @property
    def name(self) -> str:
        """Its name in AutoAttack."""
        return "fab" if self.targets is None else "fab-t"

    def __call__(
        self, model: nn.Module, x: Tensor, y: Tensor, index: Tensor | None = None
    ) -> Tensor:
        """As `run`, the images alone."""
        return self.run(model, x, y, index).x_adv

    def run(
        self, model: nn.Module, x: Tensor, y: Tensor, index: Tensor | None = None
    ) -> Attacked:
        """See `rrl_dist.attacks.result.Attack.run`."""
        packing = Packing(self.micro_batch, self.in_turn)
        columns = (x, y, index)
        return attack_in_trials(self, model, columns, packing, self.precision)

    def trials(self, classes: int) -> int:
        """Of each sample, with a model of so many classes; none without another."""
        return self.restarts * self._targets(classes) if classes > 1 else 0

    def cost(self, classes: int) -> Passes:
        """See `rrl_dist.attacks.passes.Costed`."""
        steps = self.trials(classes) * self.steps
        return Passes(2 * steps, steps * (classes if self.targets is None else 1))

    def _targets(self, classes: int) -> int:
        return 1 if self.targets is None else min(self.targets, classes - 1)

    def begin(self, samples: Samples, number: Tensor) -> Approach:
        """See `trials.Method`; number = restart * targets + target."""
        targets = self._targets(samples.logits.shape[1])
        target = ranked_class(samples.logits, samples.y, number % targets)
        x = samples.x
        if self.restarts > 1:
            start = self.ball.with_eps(self.ball.eps / 2).surface_start(
                x,
                seed=self.seed,
                key=(self.name,),
                # A trial is part of a draw's place, since rows are of different trials.
                index=samples.ids + (number << 40),
            )
            x = torch.where(as_column(number < targets, x), x, start)
        return Approach.begin(samples, target, x)

    def step(self, classifier: Classifier, state: Approach) -> Approach:
        """See `trials.Method`: a move over the boundary, and a step back if it led to a
        wrong image."""
        logits, plane = self._boundary(classifier, state)
        wrong = self._wrong(classifier, state, logits)
        state = state.visited(logits, wrong, self.ball)
        state = state._replace(x=self._moved(plane, state))
        # Without a graph: most rows step back, to where another gradient is needed.
        logits = classifier(state.x)
        wrong = self._wrong(classifier, state, logits)
        state = state.visited(logits, wrong, self.ball)
        back = as_column(wrong, state.x)
        nearer = state.center + self.beta * (state.x - state.center)
        x = torch.where(back, nearer, state.x)
        steps = state.steps + 1
        last = as_column(steps == self.steps, x)
        return state._replace(
            x=torch.where(last, self._inside(state), x),
            steps=steps,
            done=steps > self.steps,
        )

    def _wrong(self, classifier: Classifier, state: Approach, logits: Tensor) -> Tensor:
        """[M] bool; of a rough copy it is certain only within the ball, where a wrong
        image is the outcome."""
        near = None
        if classifier.is_rough:
            near = self.ball.distance(state.x, state.center) <= self.ball.eps
        return classifier.wrong(state.x, logits, state.y, near)

    def _inside(self, state: Approach) -> Tensor:
        """The point of the ball that is next to the nearest wrong image."""
        # Inward by what a distance may be rounded up.
        ball = self.ball.with_eps(self.ball.eps * (1 - 1e-6))
        return ball.project(state.near, state.center)

    def _boundary(
        self, classifier: Classifier, state: Approach
    ) -> tuple[Tensor, Hyperplane]:
        """Logits [M, K] at x, and the boundary of the linearized model to the class
        aimed at; of several the nearest, one gradient at a time."""
        with torch.enable_grad():
            x = state.x.detach().requires_grad_()
            logits = classifier(x)
            own = logits.gather(1, state.y[:, None])
            rivals = self._rivals(state, logits.shape[1])
            gaps = [(logits.gather(1, k[:, None]) - own)[:, 0] for k in rivals]
        plane = reduce(self._nearer, (_tangent(gap, x) for gap in gaps))
        return logits.detach(), plane

    def _rivals(self, state: Approach, classes: int) -> Iterator[Tensor]:
        """[M] int64 each: the classes whose boundaries count."""
        if self.targets is not None:
            yield state.target
            return
        for other in range(classes - 1):
            yield other + (state.y <= other)

    def _nearer(self, one: Hyperplane, other: Hyperplane) -> Hyperplane:
        closer = other.distance(self.ball.norm) < one.distance(self.ball.norm)
        columns = zip(other, one, strict=True)
        return Hyperplane(
            *(torch.where(as_column(closer, o), n, o) for n, o in columns)
        )

    def _moved(self, plane: Hyperplane, state: Approach) -> Tensor:
        """The next iterate: beyond the hyperplane as seen from x, with a share of the
        same as seen from the clean image."""
        x, center = state.x.flatten(1), state.center.flatten(1)
        ways = [plane.shift(point, self.ball.norm) for point in (x, center)]
        ours, theirs = (
            self.ball.distance(way, torch.zeros_like(way)).clamp_min(SHORTEST)
            for way in ways
        )
        alpha = (ours / (ours + theirs)).clamp_max(self.alpha_max)[:, None]
        goals = [p + self.eta * w for p, w in zip((x, center), ways, strict=True)]
        moved = (1 - alpha) * goals[0] + alpha * goals[1]
        return moved.clamp(0, 1).reshape(state.x.shape)


def _tangent(gap: Tensor, x: Tensor) -> Hyperplane:
    """Where the linearized difference of two logits [M] is zero."""
    (grad,) = torch.autograd.grad(
        gap,
        x,
        torch.ones_like(gap),
        retain_graph=True,
        allow_unused=True,
        materialize_grads=True,
    )
    return Hyperplane.of(x.detach().flatten(1), grad.flatten(1), gap.detach())


def nearest(
    attack: FAB,
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    index: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The nearest wrong images that all trials find, at any distance.

    Returns:
        x_adv: [N, ...]; the image itself where none was found.
        distance: [N] in the ball's norm, in [0, 1] pixels; 0 for what is wrong from the
            start, inf where none was found. They are upper bounds.

    Raises:
        UserError: as `FAB.run`.
    """
    index = torch.arange(len(x), device=x.device) if index is None else index
    check_inputs(x, y, index)
    with borrowed(model) as classifier:
        search = partial(_all_trials, attack, classifier)
        columns = (x.detach(), y, index)
        images, distance = in_micro_batches(search, *columns, size=attack.micro_batch)
    return images, distance


def _all_trials(
    attack: FAB, classifier: Classifier, x: Tensor, y: Tensor, ids: Tensor
) -> tuple[Tensor, Tensor]:
    """One micro-batch."""
    samples = Samples(x, y, ids, classifier.clean(x, y))
    right = ~misclassified(samples.logits, y)
    distance = torch.where(right, torch.inf, 0.0)
    for number in range(attack.trials(samples.logits.shape[1])):
        state = attack.begin(samples, torch.full_like(y, number))
        while not state.done.all():
            state = attack.step(classifier, state)
        nearer = state.distance < distance
        x = torch.where(as_column(nearer, x), state.near, x)
        distance = torch.where(nearer, state.distance, distance)
    return x, distance
