"""Which devices a run computes on: what is asked for, held against what is there."""

import ctypes
import os
import warnings
from collections.abc import Mapping
from typing import Any

import torch

from rrl_dist.core.errors import UserError

Version = tuple[int, int]

# Of PyTorch's packages, by CUDA's major version: a driver runs what is built for its
# own. Both have torch 2.11 and all later ones until now; none for CUDA 11 has.
_INDEXES = {
    12: "https://download.pytorch.org/whl/cu126",
    13: "https://download.pytorch.org/whl/cu130",
}


def check_driver() -> None:
    """A GPU that torch cannot use is told of: torch itself goes on on the CPU.

    Raises:
        UserError: the driver is too old for this torch, or cannot be started.
    """
    if _visible_to_torch() or torch.version.cuda is None or _hidden():
        return
    driver = _driver()
    if driver is None:
        return
    needed = _version(torch.version.cuda)
    if driver < needed:
        raise UserError(
            f"the NVIDIA driver here is for CUDA {_text(driver)}, and torch "
            f"{torch.__version__} needs CUDA {_text(needed)}; update the driver, or "
            f"{_other_torch(driver)}set cluster.gpu=false"
        )
    raise UserError(
        f"a GPU is here, but torch cannot use it ({_complaint()}); mend that, or set "
        "cluster.gpu=false"
    )


def gpus_here() -> int:
    """GPUs of this machine that torch can use."""
    return torch.cuda.device_count() if _visible_to_torch() else 0


def uses_gpus(config: Mapping[str, Any], gpus: int) -> bool:
    """Whether each worker gets a GPU.

    Args:
        config: `gpu` (true, false or "auto") and `workers`.
        gpus: that are there.

    Raises:
        UserError: too few are there.
    """
    asked, workers = config["gpu"], int(config["workers"])
    if asked not in (True, False, "auto"):
        raise UserError(f"cluster.gpu={asked}; set true, false or auto")
    if asked is False or (asked == "auto" and gpus == 0):
        return False
    if gpus == 0:
        raise UserError(
            "cluster.gpu=true, but there is no GPU that torch can use; set "
            "cluster.gpu=false to compute on the CPU"
        )
    if gpus < workers:
        raise UserError(
            f"cluster.workers={workers}, but the number of GPUs is {gpus}; set "
            f"cluster.workers={gpus} or cluster.gpu=false"
        )
    return True


def own_device(config: Mapping[str, Any]) -> torch.device:
    """Of this process, by the settled `gpu` of its cluster."""
    return torch.device("cuda" if config["gpu"] else "cpu")


def _visible_to_torch() -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # several lines, of what is told here in one
        return torch.cuda.is_available()


def _hidden() -> bool:
    """Whether someone chose that there be no GPU."""
    return os.environ.get("CUDA_VISIBLE_DEVICES", "any").strip() in ("", "-1")


def _driver() -> Version | None:
    """The newest CUDA that the NVIDIA driver knows; None without driver or GPU."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    version, count = ctypes.c_int(), ctypes.c_int()
    if driver.cuDriverGetVersion(ctypes.byref(version)) != 0:
        return None
    started = driver.cuInit(0) == 0
    if started and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value:
        return version.value // 1000, version.value % 1000 // 10
    return None


def _other_torch(driver: Version) -> str:
    """Where a torch is that this driver is new enough for, if there is one."""
    index = _INDEXES.get(driver[0])
    return f"install torch and torchvision from {index}, or " if index else ""


def _version(text: str) -> Version:
    major, minor = (int(part) for part in text.split(".")[:2])
    return major, minor


def _text(version: Version) -> str:
    return f"{version[0]}.{version[1]}"


def _complaint() -> str:
    """Why torch does not see a GPU, in its own first words."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        return str(error).split("\n", 1)[0].split(". ", 1)[0]
    return "it names no reason"
