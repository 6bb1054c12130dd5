"""The classifier that an evaluation attacks, made of what a `Source` says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import value_hash
from rrl_dist.evaluate.source import Source
from rrl_dist.models.artefact import load_strictly
from rrl_dist.models.imported import imported_model
from rrl_dist.models.zoo import Known, Normalized, timm_model, torchvision_model
from rrl_dist.training.build import load_classifier


@dataclass(frozen=True)
class Subject:
    """A classifier, ready to be attacked.

    Attributes:
        module: [N, 3, H, W] in [0, 1] -> logits [N, K]; in eval mode.
        sha256: of how it is made and of its weights.
        classes: their names; None where the model does not say them.
        size: side of the images that it was made for; None where it does not say it.
        notes: what a person should know of it, a line each.
    """

    module: nn.Module
    sha256: str
    classes: tuple[str, ...] | None = None
    size: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Models:
    """What is attacked, and what attacks are made on.

    Attributes:
        subject: the classifier.
        surrogates: by name, others that attacks are made on as well.
    """

    subject: nn.Module
    surrogates: Mapping[str, nn.Module]


def load_subject(source: Source) -> Subject:
    """Make a classifier.

    Raises:
        UserError: it cannot be made, has another number of classes than the data, or is
            another than `source.sha256` says.
    """
    if source.kind == "own":
        subject = _own(source)
    elif source.kind == "function":
        subject = _of_function(source)
    else:
        name = source.model.partition(":")[2]
        find = timm_model if source.kind == "timm" else torchvision_model
        subject = _of_library(source, find(name))
    if source.sha256 not in (None, subject.sha256):
        raise UserError(
            f"{source.model} is another each time that it is made; load its weights "
            "in the function, or give weights=FILE.safetensors"
        )
    return subject


def _own(source: Source) -> Subject:
    module, artefact = load_classifier(source.path)
    return Subject(module, artefact.sha256, artefact.classes)


def _of_function(source: Source) -> Subject:
    module, code = imported_model(source.model, folder=Path(source.folder))
    notes = []
    if any(part.training for part in module.modules()):
        notes.append(
            f"{source.model} returned a module in train mode; it is attacked in eval "
            "mode"
        )
    _fill(module, source)
    return _subject(module, source, code=code, notes=notes)


def _of_library(source: Source, known: Known) -> Subject:
    mean, std = source.mean or known.mean, source.std or known.std
    notes = []
    if source.weights is None:
        _check_classes(known, source.classes)
        module = known.trained()
    elif source.classes is None:
        raise ValueError("the number of classes is not known")
    else:
        module = known.build(classes=source.classes)
        _fill(module, source)
        if source.mean is None or source.std is None:
            told = f"mean={list(mean)} std={list(std)}"
            notes.append(
                f"images are normalized by {told}, from {source.kind}; set mean= and "
                "std= where these weights were trained with others"
            )
    module = Normalized(module, mean=mean, std=std)
    return _subject(module, source, size=known.size, notes=notes)


def _check_classes(known: Known, classes: int | None) -> None:
    """Told before the weights are fetched."""
    if classes is not None and known.classes not in (None, classes):
        raise UserError(
            f"{known.name} tells {known.classes} classes apart, and the data has "
            f"{classes}; give weights=FILE.safetensors of one trained for these, or "
            "choose other data"
        )


def _fill(module: nn.Module, source: Source) -> None:
    """Load the file of weights, if one is given."""
    if source.weights is None:
        return
    try:
        state = load_file(source.weights)
    except SafetensorError as error:
        raise UserError(
            f"weights={source.weights} is not a safetensors file ({error}); write it "
            "with safetensors.torch.save_file"
        ) from None
    prefix = _prefix(module, state)
    if prefix is not None:
        raise UserError(
            f'weights={source.weights}: its names begin with "{prefix}", and those of '
            f"{source.model} do not; write them without it, with safetensors.torch: "
            f'save_file({{k.removeprefix("{prefix}"): v for k, v in '
            "load_file(OLD).items()}, NEW)"
        )
    mend = f"give weights of {source.model} for {source.classes} classes"
    load_strictly(module, state, source=source.weights, mend=mend)


def _prefix(module: nn.Module, state: Mapping[str, Tensor]) -> str | None:
    """What stands before most of the module's names in a file, as "module." does where
    the saved module was wrapped; None where its names are as they should be."""
    wanted = sorted(module.state_dict(), key=len)
    if not wanted or wanted[-1] in state:
        return None
    ends = f".{wanted[-1]}"
    for name in state:
        prefix = name.removesuffix(ends) + "."
        same = sum(f"{prefix}{known}" in state for known in wanted)
        if name.endswith(ends) and 2 * same > len(wanted):
            return prefix
    return None


def _subject(
    module: nn.Module,
    source: Source,
    *,
    code: str | None = None,
    size: int | None = None,
    notes: Sequence[str] = (),
) -> Subject:
    about = {"model": source.model, "code": code, "state": state_hash(module)}
    # A module on a GPU is for its maker's machine; workers choose their own device.
    module = module.cpu().eval()
    return Subject(module, value_hash(about), size=size, notes=tuple(notes))


def state_hash(module: nn.Module) -> str:
    """sha256 over names, types, shapes and bytes of all weights and buffers."""
    digest = sha256()
    for name, value in sorted(module.state_dict().items()):
        if isinstance(value, Tensor):
            flat = value.detach().cpu().contiguous().reshape(-1)
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(flat.view(torch.uint8).numpy().tobytes())
        else:
            digest.update(f"{name} {type(value).__name__}".encode())
    return digest.hexdigest()
