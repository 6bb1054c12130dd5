"""A model that a function of somebody's own module builds."""

import difflib
import importlib
import pkgutil
import sys
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from torch import nn

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import file_hash, value_hash


def imported_model(what: str, *, folder: Path) -> tuple[nn.Module, str | None]:
    """Call a function without arguments, and hash the code of what it returns.

    Args:
        what: such as "mypkg.mymod:build".
        folder: where modules are looked for first.

    Returns:
        what it returned, and one sha256 of the files in `folder` that the function and
        the modules' classes stand in; None where there is none.

    Raises:
        UserError: there is no such function, it fails, or it returns no `nn.Module`.
    """
    module_name, _, name = what.partition(":")
    module = _import(module_name, folder)
    function = getattr(module, name, None)
    if not callable(function):
        raise UserError(f"{module_name} has no function {name}{_near(name, module)}")
    try:
        model = function()
    except Exception as error:  # whatever a stranger's code may raise
        raise UserError(f"{what} failed: {_reason(error)}; call it by hand") from error
    if not isinstance(model, nn.Module):
        raise UserError(
            f"{what} returned {_kind(model)}; return a torch.nn.Module that takes "
            "images in [0, 1] to logits"
        )
    classes = {type(part) for part in model.modules()}
    owners = [module, *(sys.modules.get(kind.__module__) for kind in classes)]
    return model, _code_hash(owners, folder)


def _code_hash(modules: Iterable[ModuleType | None], folder: Path) -> str | None:
    files = {getattr(module, "__file__", None) for module in modules}
    own = {Path(file).resolve() for file in files if file is not None}
    first = next((getattr(m, "__file__", None) for m in modules if m is not None), None)
    inside = {file for file in own if file.is_relative_to(folder.resolve())}
    # The function's own file counts wherever it is.
    wanted = inside | ({Path(first).resolve()} if first is not None else set())
    return value_hash(sorted(file_hash(file) for file in wanted)) if wanted else None


def _import(name: str, folder: Path) -> ModuleType:
    # It stays there: what the module imports later is looked for, too.
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
        importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise UserError(
                f"{name} imports {error.name}, which is not installed; install it"
            ) from error
        found = [module.name for module in pkgutil.iter_modules([str(folder)])]
        near = difflib.get_close_matches(name, found, n=3)
        told = f"; the nearest in {folder} is {' or '.join(near)}" if near else ""
        mend = "" if near else f"; start the command where {name} can be imported"
        raise UserError(f"there is no module {name}{told}{mend}") from None
    except Exception as error:  # whatever a stranger's code may raise
        raise UserError(
            f"{name} cannot be imported: {_reason(error)}; import it by hand"
        ) from error


def _near(name: str, module: ModuleType) -> str:
    """The mend: a function of nearly that name, or what is wanted."""
    own = [key for key, value in vars(module).items() if callable(value)]
    near = difflib.get_close_matches(name, own, n=3)
    if near:
        return f"; the nearest is {' or '.join(near)}"
    return "; name one that returns a torch.nn.Module"


def _kind(value: object) -> str:
    if isinstance(value, type):
        return f"the class {value.__name__}, not an instance"
    return "nothing" if value is None else f"a {type(value).__name__}"


def _reason(error: Exception) -> str:
    told = " ".join(str(error).split())[:160]
    return f"{type(error).__name__}: {told}" if told else type(error).__name__
