"""All checks of this machine, or of every node of a Ray cluster."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from rrl_dist.core.errors import UserError
from rrl_dist.doctor.finding import Asked, Finding, Row, Seen, failed
from rrl_dist.doctor.looking import checks, facts, look
from rrl_dist.doctor.rows import rows
from rrl_dist.training.nodes import Node, alive_nodes, answers, node_name, task_on

HERE = "this machine"

_LONGEST = 4  # checks of a node that may take all their patience


def ask_here(asked: Asked) -> list[Row]:
    """What is found on this machine."""
    seen = look(asked)
    return rows({(check, HERE): s.findings for check, s in seen.items()})


def ask_nodes(asked: Asked) -> tuple[list[Row], list[str]]:
    """What is found on each node of the Ray session that this process is in.

    Args:
        asked: what no node is told alone is not set.

    Returns:
        the rows, and the names of the nodes.
    """
    nodes = _named(alive_nodes())
    found: dict[tuple[str, str], list[Finding]] = {}
    seen, lost = _look(nodes, asked)
    for name, error in lost.items():
        found["node", name] = [failed(error)]
    for name, checked in seen.items():
        for check, one in checked.items():
            found[check, name] = list(one.findings)
    reached = {name: nodes[name] for name in seen}
    for check, name, finding in _together(reached, seen, asked):
        found.setdefault((check, name), []).append(finding)
    return rows(found), list(nodes)


def _named(nodes: list[Node]) -> dict[str, Node]:
    """By name; by a part of the id too, where several have one name."""
    names = [node_name(node) for node in nodes]
    count = Counter(names)
    return {
        name if count[name] == 1 else f"{name} {node['NodeID'][:6]}": node
        for name, node in zip(names, nodes, strict=True)
    }


def _look(
    nodes: Mapping[str, Node], asked: Asked
) -> tuple[dict[str, dict[str, Seen]], dict[str, UserError]]:
    """What the nodes saw, and why others could not be asked."""
    tasks = [
        task_on(node["NodeID"], look).remote(_asked(node, asked, len(nodes)))
        for node in nodes.values()
    ]
    patience = _LONGEST * asked.patience
    told = answers(list(nodes.values()), tasks, patience=patience)
    found = dict(zip(nodes, told, strict=True))
    lost = {name: a for name, a in found.items() if isinstance(a, UserError)}
    return {name: a for name, a in found.items() if name not in lost}, lost


def _asked(node: Node, asked: Asked, nodes: int) -> Asked:
    socket = node["ObjectStoreSocketName"]  # in a folder of the session's own
    return replace(
        asked,
        node=node["NodeID"],
        address=node["NodeManagerAddress"],
        ray_folder=str(Path(socket).parents[1]),
        object_store=node["Resources"].get("object_store_memory"),
        gpus=node["Resources"].get("GPU", 0),
        nodes=nodes,
    )


def _together(
    nodes: Mapping[str, Node], seen: Mapping[str, Mapping[str, Seen]], asked: Asked
) -> Iterator[tuple[str, str, Finding]]:
    """What is found by holding nodes against the driver and against each other."""
    own = facts(asked)
    for check, module in checks().items():
        if hasattr(module, "compare"):
            # A node whose look failed, or that has other checks, has nothing that
            # could be compared.
            told = {n: s[check].facts for n, s in seen.items() if check in s}
            known = {n: there for n, there in told.items() if there}
            for name, finding in module.compare(own[check].facts, known):
                yield check, name, finding
        if hasattr(module, "between") and nodes:
            for name, finding in module.between(nodes, asked):
                yield check, name, finding
