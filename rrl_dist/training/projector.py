"""The projector of a method, kept beside its encoder for methods that distil it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from rrl_dist.core.errors import UserError
from rrl_dist.models.artefact import Head, load_projector, load_strictly
from rrl_dist.models.heads import NormedProjector, PlainProjector, Projector
from rrl_dist.objectives.objective import Objective

Config = Mapping[str, Any]

# A description may be a stranger's: it names one of these or is refused.
_HEADS = {
    f"{made.__module__}.{made.__qualname__}": made
    for made in (Projector, NormedProjector, PlainProjector)
}
_MEND = "give a model that rrl has written"


def kept_projector(objective: Objective, config: Config) -> Head | None:
    """The projector of a method, or of the method inside it; None if it has none.

    Args:
        objective: trained.
        config: of the objective.
    """
    found = _config(config)
    if found is None:
        return None
    method: nn.Module = objective
    while isinstance(base := getattr(method, "base", None), nn.Module):
        method = base
    projector = method.get_submodule("projector")
    return Head(projector.state_dict(), found)


def fresh_projector(config: Config, num_features: int) -> nn.Module | None:
    """As `kept_projector`, of a method that is not trained yet."""
    found = _config(config)
    return None if found is None else _build(found, num_features)


def read_projector(folder: Path, num_features: int) -> nn.Module | None:
    """The projector beside a model, in train mode; None if it has none.

    Args:
        folder: of the model.
        num_features: of the encoder.

    Raises:
        UserError: it is not what `model.json` says, or cannot be built.
    """
    head = load_projector(folder)
    if head is None:
        return None
    try:
        projector = _build(head.config, num_features)
    except (KeyError, TypeError, ValueError, RuntimeError, UserError) as error:
        raise UserError(
            f"{folder} describes a projector that this version cannot build "
            f"({error}); {_MEND}"
        ) from None
    source = f"the projector of {folder}"
    load_strictly(projector, head.state, source=source, mend=_MEND)
    return projector


def _config(objective: Config) -> dict[str, Any] | None:
    """What builds the projector of a method, or of the method inside it.

    Heads of a kind that could not be read again are not kept.
    """
    while isinstance(base := objective.get("base"), Mapping):
        objective = base
    found = objective.get("projector")
    if not isinstance(found, Mapping) or found["_target_"] not in _HEADS:
        return None
    return {key: value for key, value in found.items() if key != "_partial_"}


def _build(config: Config, num_features: int) -> nn.Module:
    options = dict(config)
    made = _HEADS[options.pop("_target_")]
    return made(num_features, **options)
