"""`rrl doctor`: what is wrong with a machine or a cluster, and what mends it.

One file is one check: `check_NAME.py` has one or more of

    look(asked: Asked) -> Seen
        runs on each node, and without a cluster here;
    compare(own, nodes) -> Iterator[tuple[str, Finding]]
        runs at the driver: the facts of its own look held against each node's;
    between(nodes, asked) -> Iterator[tuple[str, Finding]]
        runs at the driver inside the cluster, for what takes more than one node.

Files are found by their names: a new one is a new check.
"""
