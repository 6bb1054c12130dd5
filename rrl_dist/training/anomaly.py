"""`cluster.anomaly`: where in the forward a gradient that is NaN comes from.

torch keeps the stack of every operation of the forward for it, and looks at every
gradient, which makes a step several times as long.
"""

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from rrl_dist.training.journal import TrainingDivergedError

_FOUND = re.compile(r"Function '(\w+)' returned nan values")
# As torch warns of the operation whose gradient it was: its stack, innermost last.
_WARNING = "Error detected in "
_FRAME = re.compile(r'^  File "(.+)", line (\d+), in (.+)\n    (.+)$', re.MULTILINE)
_TORCH = str(Path(torch.__file__).parent)


def anomaly_mode(cluster: Mapping[str, Any]) -> AbstractContextManager[Any]:
    """Torch's anomaly mode in the block, if `cluster.anomaly` asks for it."""
    if not cluster.get("anomaly"):
        return nullcontext()
    return torch.autograd.set_detect_anomaly(True)


@contextmanager
def anomalies_told(where: str) -> Iterator[None]:
    """In anomaly mode, tell a NaN of the block's backward in one line.

    Args:
        where: the block is, to begin the line with.

    Raises:
        TrainingDivergedError: naming the operation, and file and line of its forward.
    """
    if not torch.is_anomaly_enabled():
        yield
        return
    heard: list[str] = []
    with warnings.catch_warnings():
        # Told below, whatever else is made of warnings.
        warnings.filterwarnings("always", message=_WARNING)
        warnings.showwarning = _listening(heard)
        try:
            yield
        except RuntimeError as error:
            found = _FOUND.search(str(error))
            if found is None:
                if heard:  # such as a tensor that was changed in place
                    error.add_note(_place(heard, ""))
                raise
            told = f"{where}: {found[1]} gave NaN; {_place(heard, found[1])}"
            raise TrainingDivergedError(told) from error


def _listening(heard: list[str]) -> Any:
    """In the place of `warnings.showwarning`: keep torch's, show others."""
    show = warnings.showwarning

    def keep(message: Warning | str, *args: Any, **named: Any) -> None:
        if str(message).startswith(_WARNING):
            heard.append(str(message))
        else:
            show(message, *args, **named)

    return keep


def _place(heard: list[str], operation: str) -> str:
    """In the forward: the innermost line that is not torch's own."""
    of_it = (text for text in heard if text.startswith(f"{_WARNING}{operation}"))
    frames = _FRAME.findall(next(of_it, ""))
    own = [frame for frame in frames if not frame[0].startswith(_TORCH)]
    if not own:
        return "where its forward is was not kept"
    file, line, function, code = own[-1]
    path = Path(file)
    if path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return f"its forward is {path}:{line}, in {function}: {code}"
