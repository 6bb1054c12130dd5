"""DeACL with each of its options, and the same written out."""

from copy import deepcopy
from dataclasses import replace
from functools import cache
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from rrl_dist.core.batch import Batch
from rrl_dist.models.encoder import Encoder
from rrl_dist.models.heads import Projector
from rrl_dist.objectives.deacl import DeACL
from rrl_dist.objectives.objective import Frozen
from rrl_dist.training.build import build_objective
from tests.composing import compose
from tests.objectives.apart import LITERAL, literal_scale
from tests.objectives.harness import SAMPLES, global_batch, own_batch, small_encoder

EPS = 8 / 255
RAMP = "rrl_dist.objectives.ramp.Ramp"
# Each departure from the paper, and some together.
OPTIONS: dict[str, dict[str, Any]] = {
    "the paper's": {},
    "l2": {"distance": "l2"},
    "kl": {"distance": "kl"},
    "target": {"target": "student"},
    "defend": {"defend": "teacher"},
    "passes": {"passes": "separate"},
    "branches, clean": {"passes": "separate", "batch_norm": "clean"},
    "branches": {
        "passes": "separate",
        "batch_norm": "adversarial",
        "target": "student",
    },
    "second": {"teacher_sees": "second"},
    "image": {"teacher_sees": "image"},
    "cache": {"teacher_sees": "image", "cache_teacher": True},
    "projector": {"projector": True},
    "ramp": {"ramp": {"_target_": RAMP, "start": 0.0, "end": 0.8}},
    "attack_precision": {"attack_precision": "fp32"},
    "l2 of projections": {"distance": "l2", "projector": True, "target": "student"},
    "kl to the teacher": {"distance": "kl", "projector": True, "defend": "teacher"},
}


@cache
def paper() -> dict[str, Any]:
    """configs/objective/deacl.yaml."""
    return dict(compose("pretrain", "objective=deacl")["objective"])


@cache
def taught() -> tuple[Encoder, Projector]:
    """A teacher and its head, whose batch norms have seen images."""
    torch.manual_seed(9)
    encoder = small_encoder(3, sync_bn=False)
    head = Projector(encoder.num_features, hidden=12, out=6, layers=2, sync_bn=False)
    both = nn.Sequential(encoder, head)
    x, *_ = global_batch(1)
    colours = torch.rand(SAMPLES, 3, 1, 1, generator=torch.Generator().manual_seed(4))
    for _ in range(40):
        both(x * colours)
    return encoder, head


def distilling(**options: Any) -> DeACL:
    """As the YAML has it but for `options`, around a student of its own."""
    encoder, head = deepcopy(taught())
    made = build_objective(
        {**paper(), "start_from_teacher": False, **options},
        encoder=small_encoder(1),
        teacher=Frozen(encoder, sha256="teacher", projector=head),
        num_classes=3,
        image_size=8,
        seed=0,
    )
    assert isinstance(made, DeACL)
    if made.branch is not None:
        _moved_apart(made.branch.norms)
    return made.train()


def _moved_apart(norms: nn.ModuleList) -> None:
    """Values that are not those of the network's own batch norms."""
    generator = torch.Generator().manual_seed(6)
    with torch.no_grad():
        for value in norms.state_dict().values():
            if value.is_floating_point():
                value += torch.rand(value.shape, generator=generator)


def given_batch() -> Batch:
    """Images of different colours, and stored ones that are not the view; this
    worker's share of them."""
    batch = own_batch("deacl")
    generator = torch.Generator().manual_seed(3)
    colours = torch.rand(SAMPLES, 3, 1, 1, generator=generator)
    x = batch.views[0] * colours[batch.index - 100]
    return replace(batch, images=x.flip(3).roll(1, 2), views=(x, x.flip(2)))


def literal_student(objective: DeACL, x: Tensor, kind: str) -> Tensor:
    """Features by the batch norms of images of that kind."""
    values = student_values(objective, kind)
    return cast(Tensor, functional_call(objective.encoder, values, (x,)))


def student_values(objective: DeACL, kind: str) -> dict[str, Tensor]:
    """The student's weights and buffers for images of that kind, by name."""
    values = objective.encoder.state_dict(keep_vars=True)
    if objective.branch is None or objective.batch_norm == kind:
        return values
    own = [n for n, m in objective.encoder.named_modules() if isinstance(m, _BatchNorm)]
    assert len(own) == len(objective.branch.norms) > 0
    for name, norm in zip(own, objective.branch.norms, strict=True):
        for key, value in norm.state_dict(keep_vars=True).items():
            assert f"{name}.{key}" in values
            values[f"{name}.{key}"] = value
    return values


def literal_spaces(objective: DeACL, moved: Tensor, h: Tensor) -> Tensor:
    """The distance of each row, in the mean over features and projections."""
    found = literal_rows(objective, moved, h)
    if objective.matching.project is None:
        return found
    head = objective.teacher.projector
    assert isinstance(head, Projector)
    return (found + literal_rows(objective, head(moved), head(h))) / 2


def literal_rows(objective: DeACL, moved: Tensor, h: Tensor) -> Tensor:
    """In one space, [N] in float64."""
    name, scale = objective.matching.distance.__name__, literal_scale(h.double())
    pairs = zip(moved.double(), h.double(), strict=True)
    if name == "kl":  # a softmax does not see this, and exp does not overflow
        pairs = ((a - a.max(), b - b.max()) for a, b in pairs)  # type: ignore[assignment]
    return torch.stack([LITERAL[name](a, b, scale) for a, b in pairs])


def literal_target(objective: DeACL, batch: Batch) -> Tensor:
    options = {"image": batch.images, "view": batch.views[0], "second": batch.views[1]}
    seen = options[objective.teacher_sees]
    with torch.no_grad():
        found: Tensor = objective.teacher.module(seen)
    return found


def literal_loss(objective: DeACL, batch: Batch) -> Tensor:
    """The module's docstring, sums over samples in a loop."""
    x, x_adv = batch.views[0], batch.extras["x_adv"]
    n = len(x)
    if objective.passes == "joint":
        both = objective.encoder(torch.cat([x, x_adv]))
        h, h_adv = both[:n], both[n:]
    else:
        h = literal_student(objective, x, "clean")
        h_adv = literal_student(objective, x_adv, "adversarial")
    t = literal_target(objective, batch)
    anchor = t if objective.defend == "teacher" else h
    clean = literal_spaces(objective, h, t)
    attacked = literal_spaces(objective, h_adv, anchor)
    ramp = objective.ramp
    share = 1.0 if ramp.end == 0 else batch.progress / ramp.end
    total = torch.zeros((), dtype=torch.float64)
    for i in range(n):
        total = total + clean[i] + objective.weight * share * attacked[i]
    return total / n


def moved_by_a_literal_attack(objective: DeACL, batch: Batch) -> Tensor:
    """Signs of gradients, and back into the ball, student in eval mode."""
    x = batch.views[0]
    clean, student = small_encoder(1).eval(), small_encoder(1).eval()
    clean.load_state_dict(student_values(objective, "clean"))
    student.load_state_dict(student_values(objective, "adversarial"))
    anchor = literal_target(objective, batch)
    if objective.target == "student":
        anchor = clean(x).detach()
    key = ("deacl", batch.step)
    found = objective.ball.start(x, seed=0, key=key, index=batch.index)
    for _ in range(5):
        found = found.detach().requires_grad_()
        value = literal_spaces(objective, student(found), anchor).sum()
        (gradient,) = torch.autograd.grad(value, found)
        found = found.detach() + 2 / 255 * gradient.sign()
        found = torch.maximum(torch.minimum(found, x + EPS), x - EPS).clamp(0, 1)
    return found
