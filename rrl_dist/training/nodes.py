"""What each node of a Ray cluster is asked before a worker starts there."""

import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import writing
from rrl_dist.training.devices import check_driver

Node = dict[str, Any]

STORAGE_MEND = "set storage= to a folder that all nodes share, or mount it there"
_PATIENCE = 120  # seconds until a node that is alive has started one process


def check_nodes(folder: Path, *, gpu: bool) -> None:
    """Let every node read a file of the driver's in `folder`, and leave one there.

    Args:
        folder: of the run; it exists.
        gpu: workers get GPUs, so nodes with GPUs need a driver that is new enough.

    Raises:
        UserError: naming the node and what it cannot do.
    """
    for node, wrong in storage_answers(folder, alive_nodes(), gpu=gpu):
        if isinstance(wrong, UserError):
            raise wrong
        if wrong:
            raise UserError(
                f"storage {folder}: node {node_name(node)} {wrong}; {STORAGE_MEND}"
            )


def storage_answers(
    folder: Path,
    nodes: Sequence[Node],
    *,
    gpu: bool = False,
    patience: float = _PATIENCE,
) -> list[tuple[Node, str | UserError]]:
    """What each node could not do in a folder; "" where nothing.

    Args:
        folder: see `check_nodes`.
        nodes: that are asked, all at once.
        gpu: see `check_nodes`.
        patience: seconds to wait for all.

    Raises:
        UserError: the driver cannot write there.
    """
    token = uuid.uuid4().hex
    asked = folder / f".asked-{token}"
    with writing(asked):
        asked.write_text(token)
    try:
        waiting = [_ask(node, folder, token, gpu=gpu) for node in nodes]
        wrong = answers(nodes, waiting, patience=patience)
        return [
            (node, found or _arrived(folder, token, node))
            for node, found in zip(nodes, wrong, strict=True)
        ]
    finally:
        for file in folder.glob(f".*-{token}*"):
            file.unlink(missing_ok=True)


def _arrived(folder: Path, token: str, node: Node) -> str:
    there = _answered(folder, token, node["NodeID"]).is_file()
    return "" if there else "wrote a file there, and it did not arrive"


def answers(
    nodes: Sequence[Node], references: Sequence[Any], *, patience: float
) -> list[Any]:
    """What tasks of nodes returned, or the `UserError` of `answer_of`, one for each.

    Args:
        nodes: that they run on.
        references: of the tasks.
        patience: seconds to wait for all.
    """
    end = time.monotonic() + patience
    found: list[Any] = []
    for node, reference in zip(nodes, references, strict=True):
        left = max(end - time.monotonic(), 0.1)
        try:
            found.append(answer_of(node, reference, patience=left))
        except UserError as error:
            found.append(error)
    return found


def alive_nodes() -> list[Node]:
    """What Ray knows of each node that is there."""
    import ray

    known: list[Node] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in known if node["Alive"]]


def node_name(node: Node) -> str:
    """For messages."""
    return f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"


def task_on(node: str, function: Callable[..., Any], **options: Any) -> Any:
    """A function as a Ray task of the node with this id, and of no other."""
    import ray

    return ray.remote(function).options(**_there(node), max_retries=1, **options)


def actor_on(node: str, kind: Callable[[], Any]) -> Any:
    """An object of a class as a Ray actor of the node with this id, and of no other."""
    import ray

    return ray.remote(kind).options(**_there(node)).remote()


def _there(node: str) -> dict[str, Any]:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    there = NodeAffinitySchedulingStrategy(node, soft=False)
    # Whatever else runs there, it need not wait for a CPU.
    return {"num_cpus": 0, "scheduling_strategy": there}


def _ask(node: Node, folder: Path, token: str, *, gpu: bool) -> Any:
    needs_gpu = gpu and node["Resources"].get("GPU", 0) > 0
    share = 0.01 if needs_gpu else 0  # or Ray would hide the GPUs from it
    task = task_on(node["NodeID"], answer, num_gpus=share)
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


def answer_of(node: Node, reference: Any, *, patience: float | None = None) -> Any:
    """What a task of a node returned.

    Args:
        node: that it runs on.
        reference: of the task.
        patience: seconds to wait; None: to its end.

    Raises:
        UserError: a mistake that it found there, or the node does not answer.
    """
    import ray

    name = node_name(node)
    try:
        return ray.get(reference, timeout=patience)
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
