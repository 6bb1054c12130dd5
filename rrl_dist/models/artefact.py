"""A trained model as two files: `model.safetensors` and `model.json`.

The JSON holds what is needed to build the module again, and the hash of the weights. A
model loads strictly or not at all, and nothing is ever unpickled. An encoder may have
the projector that it was trained with beside it, as `projector.safetensors`.
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
PROJECTOR = "projector.safetensors"
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
        head: configuration of a classifier's head that is not linear; None of others.
    """

    state: dict[str, Tensor]
    model: dict[str, Any]
    classes: tuple[str, ...]
    sha256: str
    training: dict[str, Any]
    head: dict[str, Any] | None = None


@dataclass(frozen=True)
class Head:
    """A head kept beside an encoder.

    Attributes:
        state: the weights by name.
        config: what builds it, the number of features aside.
    """

    state: dict[str, Tensor]
    config: dict[str, Any]


def save_artefact(
    folder: Path,
    module: nn.Module,
    *,
    model: dict[str, Any],
    classes: tuple[str, ...],
    training: dict[str, Any],
    projector: Head | None = None,
    head: dict[str, Any] | None = None,
) -> str:
    """Write `module` to `folder`; returns the hash of its weights.

    `head` is the configuration of a classifier's head that is not linear.

    The weights come first: a `model.json` always speaks of the files beside it.
    """
    sha256 = _write_weights(folder / "model.safetensors", module.state_dict())
    described: dict[str, Any] = {
        "schema": SCHEMA,
        "model": model,
        "architecture": value_hash(model),
        "classes": list(classes),
        "sha256": sha256,
        "training": training,
    }
    if head is not None:
        described["head"] = head
    if projector is not None:
        written = _write_weights(folder / PROJECTOR, projector.state)
        described["projector"] = {"config": projector.config, "sha256": written}
    _write_json(folder / "model.json", described)
    return sha256


def _write_weights(path: Path, state: dict[str, Tensor]) -> str:
    """Returns the file's hash."""
    flat = {k: v.detach().cpu().contiguous() for k, v in state.items()}
    write_bytes(path, save(flat))
    return file_hash(path)


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
    return Artefact(
        _read_weights(weights, about["sha256"]),
        about["model"],
        tuple(about["classes"]),
        about["sha256"],
        about["training"],
        about.get("head"),
    )


def load_projector(folder: Path) -> Head | None:
    """The projector beside a model; None where none was kept.

    Raises:
        UserError: its file is not what `model.json` says it is.
    """
    found = _described_projector(folder)
    if found is None:
        return None
    config, sha256 = found
    return Head(_read_weights(folder / PROJECTOR, sha256), config)


def projector_hash(folder: Path) -> str | None:
    """SHA-256 of the projector beside a model; None where none was kept.

    Raises:
        UserError: `model.json` describes it wrongly.
    """
    found = _described_projector(folder)
    return None if found is None else found[1]


def _described_projector(folder: Path) -> tuple[dict[str, Any], str] | None:
    """Its configuration and its hash."""
    description = folder / "model.json"
    about = _read_description(description).get("projector")
    if about is None or not (folder / PROJECTOR).is_file():
        return None
    try:
        return dict(about["config"]), str(about["sha256"])
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{description} describes no projector ({error}); {_MEND}"
        ) from None


def _read_weights(path: Path, sha256: str) -> dict[str, Tensor]:
    """Weights by name, if the file is the one that was described."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        raise UserError(
            f"{path} is damaged: its hash is not the one in model.json; copy both "
            "files again, or remove their folder and train it again"
        )
    try:
        return load(content)
    except SafetensorError as error:
        raise UserError(
            f"{path} is not a safetensors file ({error}); {_MEND}"
        ) from error


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
    """Copy a model's files, the weights first."""
    kept = (PROJECTOR,) if (source / PROJECTOR).is_file() else ()
    for name in ("model.safetensors", *kept, "model.json"):
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
