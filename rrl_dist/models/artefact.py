"""A trained model as two files: `model.safetensors` and `model.json`.

The JSON holds what is needed to build the module again, and the hash of the weights. A
model loads strictly or not at all, and nothing is ever unpickled.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import file_hash, read_json, value_hash, write_bytes
from rrl_dist.core.storage import write_json as _write_json

SCHEMA = 1
_MEND = "give a model that rrl has written"


@dataclass(frozen=True)
class Artefact:
    """A loaded model file.

    Attributes:
        state: the weights by name.
        model: the configuration that builds the encoder.
        classes: names of the head's classes; empty for an encoder without a head.
        sha256: hash of the weights' file, which names the model.
        training: the configuration that it was trained with.
    """

    state: dict[str, Tensor]
    model: dict[str, Any]
    classes: tuple[str, ...]
    sha256: str
    training: dict[str, Any]


def save_artefact(
    folder: Path,
    module: nn.Module,
    *,
    model: dict[str, Any],
    classes: tuple[str, ...],
    training: dict[str, Any],
) -> str:
    """Write `module` to `folder`; returns the hash of its weights.

    The weights come first: a `model.json` always speaks of the file beside it.
    """
    state = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
    write_bytes(folder / "model.safetensors", save(state))
    sha256 = file_hash(folder / "model.safetensors")
    described = {
        "schema": SCHEMA,
        "model": model,
        "architecture": value_hash(model),
        "classes": list(classes),
        "sha256": sha256,
        "training": training,
    }
    _write_json(folder / "model.json", described)
    return sha256


def load_artefact(folder: Path) -> Artefact:
    """Read and verify a model.

    Raises:
        UserError: a file is missing, or is not what `model.json` says it is.
    """
    weights, description = folder / "model.safetensors", folder / "model.json"
    for path in (weights, description):
        if not path.is_file():
            raise UserError(
                f"no model at {folder}: {path.name} is missing; give the folder that "
                "holds model.safetensors and model.json"
            )
    about = _read_description(description)
    content = weights.read_bytes()
    if hashlib.sha256(content).hexdigest() != about["sha256"]:
        raise UserError(
            f"{weights} is damaged: its hash is not the one in model.json; copy both "
            "files again, or remove their folder and train it again"
        )
    try:
        state = load(content)
    except SafetensorError as error:
        raise UserError(
            f"{weights} is not a safetensors file ({error}); {_MEND}"
        ) from error
    return Artefact(
        state,
        about["model"],
        tuple(about["classes"]),
        about["sha256"],
        about["training"],
    )


def _read_description(path: Path) -> dict[str, Any]:
    """`model.json`, with all its entries there and of their types."""
    types = {"sha256": str, "classes": list, "model": dict, "training": dict}
    try:
        about = dict(read_json(path))
        if about["schema"] != SCHEMA:
            raise UserError(
                f"{path} has schema {about['schema']}, not {SCHEMA}; use the version "
                "of rrl that has written it"
            )
        wrong = [name for name, kind in types.items() if type(about[name]) is not kind]
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} describes no model ({error}); {_MEND}") from None
    if wrong:
        raise UserError(f"{path} describes no model (no such {wrong[0]}); {_MEND}")
    return about


def copy_artefact(source: Path, target: Path) -> None:
    """Copy a model's two files, the weights first."""
    for name in ("model.safetensors", "model.json"):
        write_bytes(target / name, (source / name).read_bytes())


def load_strictly(
    module: nn.Module, state: dict[str, Tensor], *, source: str, mend: str
) -> None:
    """Load every weight and no other.

    Args:
        source: of the weights, for the message.
        mend: what to do where they are others, for the message.

    Raises:
        UserError: names or shapes differ; the message names the first that does.
    """
    wanted = module.state_dict()
    wrong = [
        f"{name} is {_shape(state.get(name))} there and {_shape(wanted.get(name))} here"
        for name in sorted(wanted.keys() | state.keys())
        if _shape(wanted.get(name)) != _shape(state.get(name))
    ]
    if wrong:
        more = f", and {len(wrong) - 1} more differ" if len(wrong) > 1 else ""
        raise UserError(
            f"{source} is of another architecture: {wrong[0]}{more}; {mend}"
        )
    module.load_state_dict(state, strict=True)


def _shape(value: object) -> str:
    if not isinstance(value, Tensor):
        return "missing" if value is None else f"a {type(value).__name__}"
    return "x".join(map(str, value.shape)) or "a number"
