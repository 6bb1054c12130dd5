"""Small real objectives, the same on any number of workers."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rrl_dist.attacks.balls import Linf
from rrl_dist.core.batch import Batch
from rrl_dist.core.collectives import rank, world_size
from rrl_dist.data.augmix import AugMix
from rrl_dist.models.backbones import SmallCNN
from rrl_dist.models.encoder import Encoder
from rrl_dist.models.heads import (
    NormedProjector,
    PlainProjector,
    Predictor,
    Projector,
)
from rrl_dist.objectives.adversarial import Adversarial
from rrl_dist.objectives.barlow import Barlow
from rrl_dist.objectives.byol import BYOL
from rrl_dist.objectives.deacl import DeACL
from rrl_dist.objectives.moco import MoCo
from rrl_dist.objectives.objective import Frozen, Objective
from rrl_dist.objectives.ramp import Ramp
from rrl_dist.objectives.simclr import SimCLR
from rrl_dist.objectives.simsiam import SimSiam
from rrl_dist.objectives.spectral import Spectral
from rrl_dist.objectives.tarrl import TARRL
from rrl_dist.objectives.urrl import URRL
from rrl_dist.objectives.vicreg import VICReg
from rrl_dist.training.optim import parameter_groups, set_learning_rate, sgd
from rrl_dist.training.strategies import TorchStrategy
from tests.objectives.contrasting import CONTRASTING, contrasting
from tests.objectives.informed import INFORMED, informed
from tests.objectives.labelling import ANCHORED, MAKERS, anchored, labelled

SAMPLES = 24
SIZE = 8  # pixels


def small_encoder(seed: int, *, sync_bn: bool = True) -> Encoder:
    torch.manual_seed(seed)
    return Encoder(
        backbone=SmallCNN(width=4),
        mean=[0.5, 0.4, 0.3],
        std=[0.2, 0.2, 0.3],
        sync_bn=sync_bn,
    )


def small_objective(
    name: str,
    *,
    sync_bn: bool = True,
    encoder: Callable[[int], Encoder] | None = None,
) -> Objective:
    """A method; `encoder` makes one from a seed, and is small_encoder if not given."""
    make = encoder or partial(small_encoder, sync_bn=sync_bn)
    trained = make(1)
    torch.manual_seed(2)
    if name in TWO_VIEWS:
        return _self_supervised(name, trained, sync_bn)
    if name in AROUND:
        return _around(name, _self_supervised(AROUND[name], trained, sync_bn))
    if name in COUPLED:
        kind, base, changes = COUPLED[name]
        return _around(kind, _self_supervised(base, trained, sync_bn), **changes)
    if name in MAKERS:
        return labelled(name, trained)
    if name in ANCHORED:
        base, form = ANCHORED[name]
        return anchored(labelled(base, trained), make(3), form=form)
    if name == "deacl":
        return _deacl(trained, make(3))
    if name in CONTRASTING:
        return contrasting(name, trained, sync_bn=sync_bn)
    if name in INFORMED:
        return informed(trained, sync_bn=sync_bn, **INFORMED[name])
    if name == BRANCHED:
        return _deacl(trained, make(3), passes="separate", batch_norm="clean")
    raise ValueError(name)


TWO_VIEWS = ("simclr", "simsiam", "barlow", "vicreg", "byol", "moco")
SLOW_COPIES = ("byol", "moco")
ONE_VIEW = (*MAKERS, "anchored", "deacl", "worst_case_mi")
# Each around another, two of them around one with a slow copy.
AROUND = {
    "tarrl": "moco",
    "adversarial": "byol",
    "spectral": "simclr",
    "urrl": "simclr",
}
OBJECTIVES = (*TWO_VIEWS, *CONTRASTING, *ONE_VIEW, *AROUND)
# Around bases whose loss couples the whole batch, so that an attack on one worker's
# images depends on the others'; and by the distances that `_around` does not set.
COUPLED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "adversarial around simclr": ("adversarial", "simclr", {"attacked": 1}),
    "adversarial around barlow": ("adversarial", "barlow", {}),
    "tarrl by cosine around barlow": ("tarrl", "barlow", {"distance": "cosine"}),
    "tarrl by kl around barlow": ("tarrl", "barlow", {"distance": "kl"}),
    "urrl around moco": ("urrl", "moco", {"form": "js"}),
    "urrl by features around barlow": ("urrl", "barlow", {"mixed": 2}),
}
# Two sets of batch norms, of which one is not the encoder's.
BRANCHED = "deacl with branches"
QUEUE = 40  # keys: no multiple of a batch


def _self_supervised(name: str, encoder: Encoder, sync_bn: bool) -> Objective:
    widths: dict[str, Any] = {"hidden": 16, "out": 8}
    projector = partial(Projector, **widths, layers=2, sync_bn=sync_bn)
    normed = partial(NormedProjector, **widths, layers=2, sync_bn=sync_bn)
    plain = partial(PlainProjector, **widths)
    predictor = partial(Predictor, hidden=8, sync_bn=sync_bn)
    momentum: dict[str, Any] = {"momentum_start": 0.9, "momentum_end": 1.0}
    weights: dict[str, Any] = {"invariance": 25.0, "variance": 25.0, "covariance": 1.0}
    makers: dict[str, Callable[..., Objective]] = {
        "simclr": partial(SimCLR, projector=projector, temperature=0.2),
        "simsiam": partial(SimSiam, projector=normed, predictor=predictor),
        "barlow": partial(
            Barlow, projector=projector, off_diagonal_weight=5e-3, scale=0.1, eps=1e-5
        ),
        "vicreg": partial(
            VICReg,
            projector=projector,
            eps=1e-4,
            **{f"{term}_weight": value for term, value in weights.items()},
        ),
        "byol": partial(BYOL, projector=projector, predictor=predictor, **momentum),
        "moco": partial(
            MoCo, projector=plain, temperature=0.2, queue_size=QUEUE, **momentum
        ),
    }
    return makers[name](encoder=encoder)


def _deacl(student: Encoder, teacher: Encoder, **changes: Any) -> Objective:
    settings: dict[str, Any] = {
        "weight": 2.0,
        "ramp": Ramp(start=0.0, end=0.0),
        "distance": "cosine",
        "target": "teacher",
        "defend": "student",
        "passes": "joint",
        "batch_norm": "shared",
        "teacher_sees": "view",
        "cache_teacher": False,
        "projector": False,
        "attack_precision": "step",
        "ball": Linf(8 / 255),
        "steps": 3,
        "relative_step": 0.25,
        "start_from_teacher": False,
        "seed": 0,
    }
    frozen = Frozen(teacher, sha256="teacher")
    return DeACL(encoder=student, teacher=frozen, **{**settings, **changes})


def _around(name: str, base: Objective, **changes: Any) -> Objective:
    attack: dict[str, Any] = {"ball": Linf(8 / 255), "steps": 3, "relative_step": 0.25}
    ramp = Ramp(start=0.0, end=1.0)
    makers: dict[str, Callable[..., Objective]] = {
        "tarrl": partial(TARRL, weight=2.0, ramp=ramp, distance="l2", seed=0, **attack),
        "adversarial": partial(Adversarial, attacked=2, seed=0, **attack),
        "spectral": partial(
            Spectral,
            weight=0.02,
            ramp=ramp,
            scope="features",
            every=1,
            warm_up=20,
            image_size=SIZE,
        ),
        "urrl": partial(
            URRL,
            augmix=AugMix(severity=10.0, width=3, depth=-1, alpha=1.0),
            mixed=1,
            weight=12.0,
            ramp=ramp,
            form="auto",
            temperature=0.2,
            seed=0,
        ),
    }
    return makers[name](base=base, **changes)


def global_batch(views: int) -> tuple[Tensor, ...]:
    """Two views, labels, index of the whole batch."""
    generator = torch.Generator().manual_seed(5)
    images = [
        torch.rand(SAMPLES, 3, SIZE, SIZE, generator=generator) for _ in range(views)
    ]
    labels = torch.arange(SAMPLES) % 3
    return (*images, labels, torch.arange(100, 100 + SAMPLES))


def stored_images() -> Tensor:
    """Of the whole batch; unlike every view, so that no view may stand for them."""
    generator = torch.Generator().manual_seed(6)
    return torch.rand(SAMPLES, 3, SIZE, SIZE, generator=generator)


def own_batch(name: str) -> Batch:
    """This worker's share."""
    views = 1 if name in (*ONE_VIEW, *INFORMED, *ANCHORED) else 2
    share = SAMPLES // world_size()
    mine = slice(rank() * share, (rank() + 1) * share)
    *images, labels, index = (t[mine] for t in global_batch(views))
    stored = stored_images()[mine]
    return Batch(stored, tuple(images), labels, index, step=7, progress=0.5)


def loss_and_gradient(name: str) -> tuple[float, dict[str, Tensor]]:
    """Of one step under DDP (or alone), and the batch norm buffers after it."""
    objective = small_objective(name)
    strategy = TorchStrategy(distributed=True, precision="fp32", clip_grad=None)
    groups = parameter_groups(objective, weight_decay=0.0, decay_norm_and_bias=True)
    optimizer = sgd(groups, momentum=0.0, nesterov=False)
    strategy.wrap(objective, optimizer, torch.device("cpu"))
    before = {k: p.detach().clone() for k, p in objective.named_parameters()}
    batch = objective.inner(own_batch(name))
    terms = strategy.forward(batch)
    set_learning_rate(optimizer, 1.0)
    strategy.update(terms["loss"])
    # With SGD at rate 1, the step is the gradient that the strategy arrived at.
    gradient = {k: before[k] - p.detach() for k, p in objective.named_parameters()}
    return float(terms["loss"].detach()), gradient


def logged(name: str) -> dict[str, float]:
    """The terms of one forward on this worker's share."""
    objective = small_objective(name).train()
    terms = objective(objective.inner(own_batch(name)))
    return {key: float(value.detach()) for key, value in terms.items()}
