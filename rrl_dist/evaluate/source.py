"""Where a classifier comes from: this project's own models, a library, any function."""

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import read_json

Kind = Literal["own", "timm", "torchvision", "function"]
_FUNCTION = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_OWN_FILE = "model.safetensors"


@dataclass(frozen=True)
class Source:
    """Where a classifier comes from, as the record of a job has it. To workers travels
    the module that is made of it, pickled.

    Attributes:
        model: a folder that rrl has written, "timm:NAME", "torchvision:NAME", or
            "package.module:function", which returns a module that takes images in
            [0, 1] to logits.
        weights: a .safetensors file for it; None for those that it has.
        mean, std: of each channel in place of the library's, in [0, 1] pixels; None
            for the library's.
        classes: how many the data has; None where it is not known.
        folder: where modules are looked for.
        sha256: of the subject as it was loaded before; None if it was not.

    Raises:
        UserError: these do not go together.
    """

    model: str
    weights: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    classes: int | None = None
    folder: str = "."
    sha256: str | None = None

    def __post_init__(self) -> None:
        if self.kind == "own" and self.path.suffix == ".safetensors":
            raise UserError(
                f"model={self.model}: weights alone are no model; give the folder that "
                "holds model.safetensors and model.json, or model=timm:NAME, "
                "torchvision:NAME or MODULE:FUNCTION with weights=FILE"
            )
        _check_channels(self)
        if self.weights is not None:
            _check_weights(self, Path(self.weights))

    def absolute(self) -> "Source":
        """With paths that do not depend on where a worker is started."""
        weights = None if self.weights is None else str(_absolute(Path(self.weights)))
        model = str(_absolute(self.path)) if self.kind == "own" else self.model
        return replace(self, model=model, weights=weights)

    @property
    def kind(self) -> Kind:
        """Who makes the module."""
        library = self.model.partition(":")[0]
        if library == "timm":
            return "timm"
        if library == "torchvision":
            return "torchvision"
        named = _FUNCTION.fullmatch(self.model) and not Path(self.model).exists()
        return "function" if named else "own"

    @property
    def has_encoder(self) -> bool:
        """Whether features and a linear head can be told apart."""
        about = self.path / "model.json"
        if self.kind != "own" or not about.is_file():
            return self.kind == "own"
        try:
            return read_json(about).get("head") is None
        except (ValueError, AttributeError):  # told of where the model is loaded
            return True

    @property
    def path(self) -> Path:
        """Folder of a model of this project's, which may be named by its weights."""
        path = Path(self.model).expanduser()
        return path.parent if path.name == _OWN_FILE else path


def _absolute(path: Path) -> Path:
    return path.expanduser().absolute()


def _check_channels(source: Source) -> None:
    for name, values in (("mean", source.mean), ("std", source.std)):
        if values is None:
            continue
        if source.kind not in ("timm", "torchvision"):
            raise UserError(
                f"{name}= is for timm: and torchvision:, and {source.model} normalizes "
                f"inside; leave {name}= out"
            )
        numbers = all(type(value) in (int, float) for value in values)
        fits = numbers and len(values) == 3 and (name == "mean" or min(values) > 0)
        if not fits:
            above = ", above 0" if name == "std" else ""
            raise UserError(
                f"{name}={list(values)}; give three numbers in [0, 1] pixels{above}, "
                f"such as {name}=[0.5,0.5,0.5]"
            )


def _check_weights(source: Source, file: Path) -> None:
    if source.kind == "own":
        raise UserError(
            f"weights={file}: {source.model} is a folder with weights of its own; "
            "leave weights= out, or set model=timm:NAME, torchvision:NAME or "
            "MODULE:FUNCTION"
        )
    if file.suffix != ".safetensors":
        raise UserError(
            f"weights={file}: only .safetensors is read, since other files may hold "
            "code; write one with safetensors.torch.save_file(model.state_dict(), FILE)"
        )
    if not file.is_file():
        raise UserError(f"weights={file}: there is no such file; correct weights=")
