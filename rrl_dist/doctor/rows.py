"""Findings of many nodes as few rows."""

from collections.abc import Iterable, Mapping, Sequence

from rrl_dist.doctor.finding import FAIL, OK, WARN, Finding, Row

# Of a check on a node, in the order that they were found.
Found = Mapping[tuple[str, str], Sequence[Finding]]

_WORST_FIRST = (FAIL, WARN, OK)


def rows(found: Found) -> list[Row]:
    """One row for each finding, with all nodes that share it; what is worst is first
    in its check, and where a node has something wrong, that it is in order is not
    said too.

    Args:
        found: by check and node.
    """
    together: dict[tuple[str, Finding], list[str]] = {}
    for (check, node), findings in found.items():
        for finding in _telling(findings):
            nodes = together.setdefault((check, finding), [])
            if node not in nodes:
                nodes.append(node)
    made = [Row(c, tuple(nodes), f) for (c, f), nodes in together.items()]
    return sorted(made, key=lambda row: (row.check, _rank(row)))


def _telling(findings: Sequence[Finding]) -> Iterable[Finding]:
    wrong = [finding for finding in findings if finding.state != OK]
    return wrong or findings


def _rank(row: Row) -> int:
    return _WORST_FIRST.index(row.finding.state)
