"""Every strategy around a small objective, and what a worker of its tests does."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from io import BytesIO
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer

from rrl_dist.core.batch import Batch
from rrl_dist.core.collectives import any_worker, rank, world_size
from rrl_dist.models.encoder import Encoder
from rrl_dist.training.checkpoint_parts import Part, assemble
from rrl_dist.training.loop import after_step
from rrl_dist.training.optim import adamw, parameter_groups, set_learning_rate, sgd
from rrl_dist.training.precision import LossScale
from rrl_dist.training.strategies import Strategy, TorchStrategy
from rrl_dist.training.zero import DeepSpeedStrategy
from tests.objectives.harness import own_batch, small_objective

CPU = torch.device("cpu")
ZERO = ("zero0", "zero1", "zero2", "zero3")
DISTRIBUTED = ("ddp", *ZERO)
EVERY = ("single", *DISTRIBUTED)
OFFLOADED = ("zero1-optimizer", "zero2-optimizer", "zero3-optimizer", "zero3-all")
SPAN = 20  # steps of a run, for what follows its progress
# At its default ZeRO-3 leaves weights of fewer elements whole, all of a small network.
OPTIONS = {"stage3_param_persistence_threshold": 0, "reduce_bucket_size": 10**6}


def made(
    kind: str, *, precision: str = "fp32", clip_grad: float | None = None
) -> Strategy:
    """One of `EVERY` or `OFFLOADED`, not wrapped."""
    if kind.startswith("zero"):
        stage, _, offload = kind.removeprefix("zero").partition("-")
        return DeepSpeedStrategy(
            stage=int(stage),
            precision=precision,
            offload=offload or "none",
            options=OPTIONS,
            clip_grad=clip_grad,
        )
    return TorchStrategy(
        distributed=kind == "ddp", precision=precision, clip_grad=clip_grad
    )


class Run:
    """Some steps of one objective under one strategy, on this worker's share.

    Args:
        name: of a small objective.
        kind: of `EVERY` or `OFFLOADED`.
        optimizer: "sgd" (with momentum), "plain" (without), or "adamw".
        state: to go on from.
        options: `lr`, `precision`, `clip_grad`, `sync_bn`, `encoder` (from a seed).
    """

    def __init__(
        self,
        name: str,
        kind: str,
        *,
        optimizer: str = "sgd",
        state: dict[str, Any] | None = None,
        lr: float = 0.1,
        sync_bn: bool = True,
        encoder: Callable[[int], Encoder] | None = None,
        **options: Any,
    ) -> None:
        self.name = name
        self.objective = small_objective(name, sync_bn=sync_bn, encoder=encoder)
        self.objective.train()
        self.optimizer = _optimizer(optimizer, self.objective)
        self.strategy = made(kind, **options)
        if state is not None:
            self.objective.load_state_dict(state["objective"])
        self.strategy.wrap(self.objective, self.optimizer, CPU)
        self.done = 0
        if state is not None:
            self.strategy.load(state)
            self.done = int(state["step"])
        set_learning_rate(self.optimizer, lr)

    def step(self, batch: Batch | None = None) -> float:
        """One optimizer step and all that follows it; the loss before it."""
        batch = own_batch(self.name) if batch is None else batch
        loss = self.update(self.inner(batch))
        self.done += 1
        after_step(self.objective, self.strategy, self.done / SPAN)
        return loss

    def inner(self, batch: Batch) -> Batch:
        """The inner maximization, as the loop calls it."""
        with self.strategy.raw():
            return self.objective.inner(batch)

    def update(self, outer: Batch) -> float:
        """One optimizer step on a batch that `inner` has seen."""
        terms = self.strategy.forward(outer)
        self.strategy.update(terms["loss"])
        return float(terms["loss"].detach())

    def weights(self) -> dict[str, Tensor]:
        """Copies, whole on every worker."""
        with self.strategy.gathered():
            state = self.objective.state_dict()
            return {name: value.detach().clone() for name, value in state.items()}


def _optimizer(name: str, objective: torch.nn.Module) -> Optimizer:
    groups = parameter_groups(objective, weight_decay=1e-3, decay_norm_and_bias=False)
    if name == "adamw":
        return adamw(groups, beta1=0.9, beta2=0.99)
    return sgd(groups, momentum=0.9 if name == "sgd" else 0.0, nesterov=False)


def losses(name: str, kind: str, steps: int, options: dict[str, Any]) -> list[float]:
    """Of so many steps."""
    run = Run(name, kind, **options)
    return [run.step() for _ in range(steps)]


def state_after(
    name: str,
    kind: str,
    steps: int,
    state: dict[str, Any] | None,
    options: dict[str, Any],
) -> tuple[list[float], dict[str, Any]]:
    """Losses of some steps from a state, and the state then, its `step` included."""
    # What comes from another process is shared with it, and optimizers keep it.
    run = Run(name, kind, state=deepcopy(state), **options)
    found = [run.step() for _ in range(steps)]
    return found, {**whole_state(run.strategy), "step": run.done}


def whole_state(strategy: Strategy) -> dict[str, Any]:
    """What a checkpoint of all workers' parts would hold."""
    part = strategy.part()
    found: list[Any] = [None] * world_size()
    if world_size() > 1:
        dist.all_gather_object(found, part)
    else:
        found = [part]
    parts = [each for each in found if each is not None]
    assert [(each.number, each.of) for each in parts] == [
        (number, len(parts)) for number in range(len(parts))
    ]
    state: dict[str, Any] = assemble([each.state for each in parts])
    return state


def part_and_two_steps(kind: str) -> tuple[bool, dict[str, int], bool]:
    """A worker's part; whether two steps change it; and whether they change weights.

    Of the part: elements of weights that are trained, and of the optimizer's moments.
    """
    run = Run("supervised", kind, optimizer="adamw", lr=1e-2)
    run.step()
    before, part = run.weights(), run.strategy.part()
    first = _written(part)
    run.step()
    run.step()
    after = run.weights()
    trained = [n for n, p in run.objective.named_parameters() if p.requires_grad]
    moved = all(not torch.equal(before[n], after[n]) for n in trained)
    state = (
        {"objective": {}, "optimizer": {"state": {}}} if part is None else part.state
    )
    weights = [state["objective"].get(name) for name in trained]
    moments = [
        value
        for each in state["optimizer"]["state"].values()
        for key, value in each.items()
        if key != "step"
    ]
    sizes = {"weights": _elements(weights), "moments": _elements(moments)}
    return first == _written(part), sizes, moved


def _written(part: Part | None) -> bytes:
    buffer = BytesIO()
    torch.save(None if part is None else part.state, buffer)
    return buffer.getvalue()


def _elements(values: list[Any]) -> int:
    found = [v["values"] if isinstance(v, dict) else v for v in values if v is not None]
    return sum(value.numel() for value in found)


def gradient_norms(name: str, kind: str, attack: str) -> list[float]:
    """Global gradient norms of three steps of plain SGD on one fixed outer batch.

    Args:
        name, kind: as for `Run`.
        attack: before each step: "none"; "inner", the objective's own; or "engine", one
            through the wrapped module, which is the mistake.
    """
    run = Run(name, kind, optimizer="plain", lr=1e-3)
    batch = own_batch(name)
    outer = run.inner(batch)
    norms = []
    for _ in range(3):
        _ATTACKS[attack](run, batch)
        before = run.weights()
        run.update(outer)
        after = run.weights()
        trained = dict(run.objective.named_parameters())
        moved = [(before[k] - after[k]) / 1e-3 for k in trained]
        norms.append(float(torch.cat([m.flatten() for m in moved]).norm()))
    return norms


def _through_the_engine(run: Run, batch: Batch) -> None:
    engine: Any = run.strategy.engine  # type: ignore[attr-defined]
    outer = run.inner(batch)
    views = tuple(v.clone().requires_grad_() for v in outer.views)
    # Some methods train on images that `inner` has left in the extras alone.
    extras = {
        k: v.clone().requires_grad_() if v.ndim == 4 else v
        for k, v in outer.extras.items()
    }
    images = [v for v in (*views, *extras.values()) if v.requires_grad]
    loss = engine(replace(outer, views=views, extras=extras))
    torch.autograd.grad(loss["loss"], images, allow_unused=True)


_ATTACKS: dict[str, Callable[[Run, Batch], Any]] = {
    "none": lambda run, batch: None,
    "inner": lambda run, batch: run.inner(batch),
    "engine": _through_the_engine,
}


def doubled_weights_after_a_step(kind: str) -> tuple[dict[str, Tensor], ...]:
    """Weights before, after doubling them by hand, and after a step at rate 0."""
    run = Run("supervised", kind, optimizer="plain", lr=0.0)
    before = run.weights()
    with run.strategy.gathered(write=True), torch.no_grad():
        for parameter in run.objective.parameters():
            parameter.mul_(2)
    doubled = run.weights()
    run.step()
    return before, doubled, run.weights()


def overflow_on_one_worker(kind: str) -> tuple[bool, float, bool, float]:
    """Whether a step was left out, and the loss scale then; and the same once more
    with a finite gradient."""
    run = Run("supervised", kind, precision="fp32")
    scale = _forced_scale(run)
    weight = next(iter(run.objective.parameters()))
    found = []
    for poisoned in (True, False):
        before = run.weights()
        terms = run.strategy.forward(own_batch("supervised"))
        if poisoned and rank() == 0:
            hook = weight.register_hook(lambda gradient: gradient * torch.inf)
        run.strategy.update(terms["loss"])
        if poisoned and rank() == 0:
            hook.remove()
        after = run.weights()
        trained = dict(run.objective.named_parameters())
        same = all(torch.equal(before[k], after[k]) for k in trained)
        found += [not any_worker(not same, CPU), scale.value]
    return tuple(found)  # type: ignore[return-value]


def weights_after_a_scaled_step(kind: str, scaled: bool) -> dict[str, Tensor]:
    """With clipping, which must see the gradient as it is."""
    run = Run("supervised", kind, clip_grad=0.3)
    if scaled:
        _forced_scale(run)
    run.step()
    return run.weights()


def _forced_scale(run: Run) -> LossScale:
    run.strategy.loss_scale = LossScale()  # type: ignore[attr-defined]
    return run.strategy.loss_scale  # type: ignore[attr-defined,no-any-return]
