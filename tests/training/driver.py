"""A driver in a process of its own: python -m tests.training.driver ORDERS.json"""

import sys
from pathlib import Path

from rrl_dist.core.storage import read_json
from rrl_dist.training.cluster import session
from rrl_dist.training.launch import launch


def tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    orders = read_json(Path(sys.argv[1]))
    with session(orders["cluster"]) as cluster:
        launch(orders["stage"], Path(orders["folder"]), cluster, tell)
