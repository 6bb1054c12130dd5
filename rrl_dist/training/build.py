"""Configuration to objects: the one place that does it."""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from torch import nn
from torch.optim import Optimizer

from rrl_dist.core.errors import UserError
from rrl_dist.core.randomness import torch_stream
from rrl_dist.models.artefact import Artefact, load_artefact, load_strictly
from rrl_dist.models.backbones import InfomaxCNN, SmallCNN, timm_backbone
from rrl_dist.models.encoder import (
    Classifier,
    DeepClassifier,
    Encoder,
    classifier,
)
from rrl_dist.models.heads import MLPHead, linear_head
from rrl_dist.models.wide_resnet import WideResNet
from rrl_dist.objectives.objective import Frozen, Objective
from rrl_dist.training.optim import parameter_groups
from rrl_dist.training.projector import read_projector

Config = Mapping[str, Any]
LINEAR = f"{linear_head.__module__}.{linear_head.__qualname__}"


def build(config: Config, **extra: Any) -> Any:
    """The object that `config` describes by its `_target_`; `extra` are arguments.

    Raises:
        UserError: what the constructor had to say against its arguments.
    """
    _check_arguments(config, extra)
    try:
        # Partial first: handed to Hydra, live objects would be deep-copied.
        make = instantiate(dict(config), _convert_="all", _partial_=True)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from None
        raise UserError(f"{config.get('_target_')}: {cause or error}") from error
    return make(**extra)


def _parameters(target: str) -> Mapping[str, inspect.Parameter]:
    """What a class or function takes, by name."""
    try:
        return inspect.signature(get_object(target)).parameters
    except (ImportError, AttributeError, ValueError, TypeError):
        raise UserError(f"there is no {target}; check _target_") from None


def _check_arguments(config: Config, extra: Config) -> None:
    """Keys that are not taken, or not given, told before the constructor is called."""
    taken, name = _parameters(config["_target_"]), str(config["_target_"])
    name = name.rpartition(".")[2]
    if any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        return
    given = {key for key in config if not key.startswith("_")} | extra.keys()
    needed = {key for key, p in taken.items() if p.default is p.empty}
    for key in sorted(given - taken.keys()):
        raise UserError(f"{name} takes no {key}; it takes {', '.join(taken)}")
    for key in sorted(needed - given):
        if not config.get("_partial_"):
            raise UserError(f"{name} needs {key}; set it")


def offered(config: Config, **offers: Any) -> dict[str, Any]:
    """Those of `offers` that the constructor takes and `config` does not set.

    So an objective that needs a teacher names one in its signature, and no list of
    objectives has to be kept here.
    """
    taken = _parameters(config["_target_"])
    return {k: v for k, v in offers.items() if k in taken and k not in config}


def build_encoder(model: Config, *, seed: int) -> Encoder:
    """A fresh encoder; its initialization depends on the seed alone."""
    with _seeded(seed, "encoder"):
        return cast(Encoder, build(model))


def build_objective(
    config: Config,
    *,
    encoder: nn.Module,
    teacher: Frozen | None,
    num_classes: int,
    image_size: int,
    seed: int,
    head: Config | None = None,
    batch_norm: str = "trained",
) -> Objective:
    """A method around an encoder, or around another method, its `base`.

    Args:
        config: of the method.
        encoder, teacher, num_classes, image_size, seed: what methods may ask for.
        head: of those that learn from labels; None for a linear one.
        batch_norm: "frozen" to keep that of an encoder that is trained as it is.

    Raises:
        UserError: the method needs a teacher and none is given.
    """
    parts: dict[str, Any] = {
        "encoder": encoder,
        "teacher": teacher,
        "num_classes": num_classes,
        "image_size": image_size,
        "seed": seed,
    }
    own = {"head": head, "batch_norm": batch_norm}
    config = dict(config)
    if isinstance(config.get("base"), Mapping):
        parts["base"] = _build_base(config.pop("base"), **parts, **own)
    parts["head"] = partial(_head, {"_target_": LINEAR} if head is None else head)
    parts["freeze_batch_norm"] = batch_norm == "frozen"
    offers = offered(config, **parts)
    if "teacher" in offers and teacher is None:
        name = str(config["_target_"]).rpartition(".")[2]
        raise UserError(f"{name} distils a teacher; set teacher=FOLDER of a model")
    with _seeded(seed, "objective"):
        return cast(Objective, build(config, **offers))


def head_of(stage: Config) -> dict[str, Any]:
    """What a stage's protocol says of the head and of batch norm, for the above."""
    return {key: stage[key] for key in ("head", "batch_norm") if key in stage}


def build_optimizer(optim: Config, objective: Objective) -> Optimizer:
    """The optimizer of what an objective trains; its rate is set at each step."""
    groups = parameter_groups(
        objective,
        weight_decay=float(optim["weight_decay"]),
        decay_norm_and_bias=bool(optim["decay_norm_and_bias"]),
    )
    return cast(Optimizer, build(optim["optimizer"], groups=groups))


def _head(config: Config, in_features: int, num_classes: int) -> nn.Module:
    made = build(config, in_features=in_features, num_classes=num_classes)
    return cast(nn.Module, made)


def _build_base(config: Config, **parts: Any) -> Objective:
    """A method inside another, whose keys are one deeper than it knows."""
    try:
        return build_objective(config, **parts)
    except UserError as error:
        raise UserError(str(error).replace("objective.", "objective.base.")) from None


def load_encoder(folder: Path) -> tuple[Encoder, Artefact]:
    """The encoder of a model on disk; a classifier gives the encoder inside it."""
    artefact = load_artefact(folder)
    encoder = _described(artefact, folder)
    state = artefact.state
    if artefact.classes:
        prefix = "encoder."
        state = {
            name.removeprefix(prefix): value
            for name, value in state.items()
            if name.startswith(prefix)
        }
    load_strictly(encoder, state, source=_weights(folder), mend=_FOREIGN)
    return encoder, artefact


def load_classifier(folder: Path) -> tuple[Classifier | DeepClassifier, Artefact]:
    """A classifier on disk, in eval mode.

    Raises:
        UserError: it is an encoder without a head.
    """
    artefact = load_artefact(folder)
    if not artefact.classes:
        raise UserError(f"{folder} is an encoder without a head; probe it first")
    encoder = _described(artefact, folder)
    head = _described_head(artefact, encoder.num_features, folder)
    model = classifier(encoder, head)
    load_strictly(model, artefact.state, source=_weights(folder), mend=_FOREIGN)
    return model.eval(), artefact


def load_model(folder: Path) -> Artefact:
    """What is in a folder: an encoder or a classifier, built to see that it can be."""
    artefact = load_artefact(folder)
    return (load_classifier if artefact.classes else load_encoder)(folder)[1]


def load_teacher(folder: Path) -> Frozen:
    """A frozen encoder, and its projector where one was kept."""
    encoder, artefact = load_encoder(folder)
    projector = read_projector(folder, encoder.num_features)
    return Frozen(encoder, sha256=artefact.sha256, projector=projector)


_FOREIGN = "model.json beside it describes another; give a model that rrl has written"


def _weights(folder: Path) -> str:
    return str(folder / "model.safetensors")


_BACKBONES = {
    f"{made.__module__}.{made.__qualname__}": made
    for made in (timm_backbone, SmallCNN, InfomaxCNN, WideResNet)
}


def _described(artefact: Artefact, folder: Path) -> Encoder:
    """Build what a model file describes.

    The description may be a stranger's, and Hydra would follow any import path in it
    (`rrl_dist.models.encoder.torch.hub.load` is one). So it is read as plain data, and
    names one of this project's own backbones or is refused.
    """
    try:
        model = dict(artefact.model)
        if model.pop("_target_") != f"{Encoder.__module__}.{Encoder.__qualname__}":
            raise KeyError("another encoder")
        backbone = dict(model.pop("backbone"))
        made = _BACKBONES[backbone.pop("_target_")]
        return Encoder(backbone=made(**backbone), **model)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder} describes a model that this version cannot build ({error}); "
            "give a model that rrl has written"
        ) from None


_HEADS = {f"{made.__module__}.{made.__qualname__}": made for made in (MLPHead,)}


def _described_head(artefact: Artefact, in_features: int, folder: Path) -> nn.Module:
    """As `_described`; a file that tells of no head is of a linear one."""
    classes = len(artefact.classes)
    if artefact.head is None:
        return linear_head(in_features, classes)
    try:
        own = dict(artefact.head)
        return _HEADS[own.pop("_target_")](in_features, classes, **own)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder} describes a head that this version cannot build ({error}); "
            "give a model that rrl has written"
        ) from None


@contextmanager
def _seeded(seed: int, purpose: str) -> Iterator[None]:
    """Lend torch's global generator, the only one its initializers know, a seed."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(torch_stream(seed, purpose).get_state())
        yield
