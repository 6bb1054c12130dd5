"""Whether all nodes read and write one folder of runs, at one path."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import writing
from rrl_dist.doctor.finding import Asked, Finding, fail, failed, ok
from rrl_dist.training.nodes import STORAGE_MEND, Node, storage_answers


def between(nodes: Mapping[str, Node], asked: Asked) -> Iterator[tuple[str, Finding]]:
    """Every node reads a file of the driver's there and leaves one; all are removed."""
    folder = Path(asked.storage)
    made = not folder.is_dir()
    try:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        by_id = {node["NodeID"]: name for name, node in nodes.items()}
        found = storage_answers(folder, list(nodes.values()), patience=asked.patience)
        for node, wrong in found:
            yield by_id[node["NodeID"]], _judged(folder, wrong)
    except UserError as error:  # the driver's own
        for name in nodes:
            yield name, failed(error)
    finally:
        if made:
            with suppress(OSError):  # someone has begun a run there
                folder.rmdir()


def _judged(folder: Path, wrong: str | UserError) -> Finding:
    if isinstance(wrong, UserError):
        return failed(wrong)
    if wrong:
        return fail(f"storage {folder}: this node {wrong}", STORAGE_MEND)
    return ok(f"every node reads and writes {folder}")
