"""What each node of a Ray cluster is asked before a worker starts there."""

import uuid
from pathlib import Path
from typing import Any

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import writing
from rrl_dist.training.devices import check_driver

_PATIENCE = 120  # seconds until a node that is alive has started one process


def check_nodes(folder: Path, *, gpu: bool) -> None:
    """Let every node read a file of the driver's in `folder`, and leave one there.

    Args:
        folder: of the run; it exists.
        gpu: workers get GPUs, so nodes with GPUs need a driver that is new enough.

    Raises:
        UserError: naming the node and what it cannot do.
    """
    token = uuid.uuid4().hex
    asked = folder / f".asked-{token}"
    with writing(asked):
        asked.write_text(token)
    try:
        nodes = [node for node in _known() if node["Alive"]]
        answers = [(n, _ask(n, folder, token, gpu=gpu)) for n in nodes]
        for node, reference in answers:
            wrong = _told(_name(node), reference)
            if not wrong and not _answered(folder, token, node["NodeID"]).is_file():
                wrong = "wrote a file there, and it did not arrive"
            if wrong:
                raise UserError(
                    f"storage {folder}: node {_name(node)} {wrong}; set storage= to a "
                    "folder that all nodes share, or mount it there"
                )
    finally:
        for file in folder.glob(f".*-{token}*"):
            file.unlink(missing_ok=True)


def _known() -> list[dict[str, Any]]:
    import ray

    return list(ray.nodes())  # type: ignore[no-untyped-call]


def _name(node: dict[str, Any]) -> str:
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


def _ask(node: dict[str, Any], folder: Path, token: str, *, gpu: bool) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    needs_gpu = gpu and node["Resources"].get("GPU", 0) > 0
    task = ray.remote(answer).options(
        num_cpus=0,
        num_gpus=0.01 if needs_gpu else 0,  # or Ray would hide the GPUs from it
        scheduling_strategy=there,
        max_retries=1,
    )
    return task.remote(str(folder), token, node["NodeID"], needs_gpu)


def answer(folder: str, token: str, node: str, gpu: bool) -> str:
    """Runs on a node: "" if it can be used, else what is wrong."""
    asked = Path(folder) / f".asked-{token}"
    try:
        if asked.read_text() != token:
            return "reads another file there than the driver wrote"
        _answered(Path(folder), token, node).write_text(token)
    except FileNotFoundError:
        return "does not have that folder, or has another one of its name"
    except OSError as error:
        return f"cannot use it ({error.strerror})"
    if gpu:
        check_driver()
    return ""


def _answered(folder: Path, token: str, node: str) -> Path:
    return folder / f".answered-{token}-{node}"


def _told(name: str, reference: Any) -> str:
    """A node's answer.

    Raises:
        UserError: it gave none, or cannot use its GPU.
    """
    import ray

    try:
        return str(ray.get(reference, timeout=_PATIENCE))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise UserError(f"node {name}: {error.cause}") from None
        told = str(error.cause)
    except (ray.exceptions.RayError, TimeoutError) as error:
        told = str(error).strip().split("\n", 1)[0]
    raise UserError(
        f"node {name} could not be asked ({told}); see that rrl_dist is installed "
        "there, or take the node out of the cluster"
    )
