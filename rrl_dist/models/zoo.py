"""Classifiers of timm and torchvision by name, with their normalization inside."""

import difflib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from torch import Tensor, nn

from rrl_dist.core.errors import UserError
from rrl_dist.models.encoder import Normalize


class Normalized(nn.Module):
    """[N, 3, H, W] in [0, 1] -> what `model` makes of (x - mean) / std."""

    def __init__(
        self, model: nn.Module, *, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.normalize, self.model = Normalize(mean, std), model

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.model(self.normalize(x)))


@dataclass(frozen=True)
class Known:
    """A model that a library knows, not built yet.

    Attributes:
        name: with its library, such as "timm:resnet18".
        classes: of its trained weights; None where the library has none.
        size: side of the images that it was made for, in pixels.
        mean, std: of each channel, in [0, 1] pixels.
        build: makes it, with an argument `classes`: how many for a fresh head, None for
            the trained weights, fetched if they are not there.
    """

    name: str
    classes: int | None
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    build: Callable[..., nn.Module]

    def trained(self) -> nn.Module:
        """With the library's weights.

        Raises:
            UserError: there are none, or they cannot be fetched.
        """
        mend = "give weights=FILE.safetensors"
        if self.classes is None:
            raise UserError(f"there are no trained weights of {self.name}; {mend}")
        try:
            with _without_code():
                return self.build(classes=None)
        # Each of the libraries below timm and torchvision has exceptions of its own.
        except Exception as error:
            reason = " ".join(str(error).split())[:160]
            raise UserError(
                f"the weights of {self.name} cannot be fetched "
                f"({type(error).__name__}: {reason}); {mend}"
            ) from error


@contextmanager
def _without_code() -> Iterator[None]:
    """Files of weights are read as tensors alone: torchvision would unpickle them."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def timm_model(name: str) -> Known:
    """A model of timm, such as "resnet18" or "resnet18.a1_in1k".

    Raises:
        UserError: timm has none of that name.
    """
    import timm

    if not timm.is_model(name):
        raise _unknown("timm", name, timm.list_models())
    try:
        config = timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError:  # the part behind the dot
        known = timm.list_models(f"{name.partition('.')[0]}.*", pretrained=True)
        raise _unknown("timm", name, known) from None
    assert config is not None
    return Known(
        f"timm:{name}",
        config.num_classes if config.has_weights else None,
        config.input_size[-1],
        tuple(config.mean),
        tuple(config.std),
        partial(_timm, name),
    )


def _timm(name: str, *, classes: int | None) -> nn.Module:
    import timm

    own: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    return timm.create_model(name, pretrained=classes is None, **own)


def torchvision_model(name: str) -> Known:
    """A classifier of torchvision with its default weights, such as "resnet18".

    Raises:
        UserError: torchvision has none of that name.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise _unknown("torchvision", name, known)
    weights = models.get_model_weights(name).DEFAULT
    given = weights.transforms()
    return Known(
        f"torchvision:{name}",
        len(weights.meta["categories"]),
        given.crop_size[0],
        tuple(given.mean),
        tuple(given.std),
        partial(_torchvision, name),
    )


def _torchvision(name: str, *, classes: int | None) -> nn.Module:
    from torchvision import models

    own: dict[str, Any] = {"weights": "DEFAULT"}
    if classes is not None:
        own = {"weights": None, "num_classes": classes}
    return cast(nn.Module, models.get_model(name, **own))


def _unknown(library: str, name: str, known: Sequence[str]) -> UserError:
    near = difflib.get_close_matches(name, known, n=3)
    told = f"the nearest is {' or '.join(near)}" if near else f"see {library}'s list"
    return UserError(f"{library} has no model {name}; {told}")
