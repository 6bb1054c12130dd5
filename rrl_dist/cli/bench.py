"""`rrl bench tune`: sweeps against a grid and against random search, as JSON and a
table. `rrl bench attack` is in a file of its own."""

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from typing import Any

from rrl_dist.cli.app import absolute_folders, identity, run_command, run_folder
from rrl_dist.cli.bench_attack import bench_attack
from rrl_dist.cli.progress import Terminal
from rrl_dist.core.errors import UserError
from rrl_dist.core.run_directory import environment, open_run
from rrl_dist.core.storage import write_bytes, write_json
from rrl_dist.report.tables import Table
from rrl_dist.tune.bench import Bench, compare_searches, rows

# By word, the name of its configuration.
BENCHES = {"tune": "bench", "attack": "bench_attack"}


def main() -> None:
    """Entry point: `rrl bench WHAT key=value`."""
    what = sys.argv[1] if len(sys.argv) > 1 else ""
    if what in ("-h", "--help", "--cfg"):
        run_command(BENCHES["tune"], bench)
        return
    if what not in BENCHES:
        told = f"there is no bench {what}; choose rrl bench {'|'.join(BENCHES)}"
        print(f"rrl bench: {told}", file=sys.stderr)
        sys.exit(2)
    del sys.argv[1]
    run_command(BENCHES[what], bench if what == "tune" else bench_attack)


def bench(config: dict[str, Any], config_yaml: str) -> None:
    """Run what is missing, and write `bench.json` and `bench.md`."""
    terminal = Terminal()
    config = absolute_folders(config)
    folder, own = run_folder(config), config["bench"]
    unknown = [arm for arm in own["arms"] if arm not in config["arms"]]
    if unknown:
        known = ", ".join(config["arms"])
        raise UserError(f"bench.arms: there is no arm {unknown[0]}; choose of {known}")
    about = identity("bench", config["arms"], config["data"])
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    with (
        open_run(folder, about, config_yaml),
        ProcessPoolExecutor(int(own["processes"]), mp_context=context) as pool,
    ):
        found = [
            compare_searches(Bench(config, arm, folder / arm), pool, terminal.notify)
            for arm in own["arms"]
        ]
    told = {"date": date.today().isoformat(), "environment": environment()}
    write_json(folder / "bench.json", {**told, "bench": own, "arms": found})
    table = _table(found, own)
    write_bytes(folder / "bench.md", f"{table.to_markdown()}\n".encode())
    terminal.console.print(f"\n{table.to_text()}", markup=False)
    terminal.notify(str(folder / "bench.json"))


def _table(found: list[dict[str, Any]], own: dict[str, Any]) -> Table:
    header = ("method", "search", "steps, of the grid's", "regret, points")
    caption = (
        f"Searches of the weight: a sweep of {own['trials']} trials, and random search "
        f"of as many steps, over {own['seeds']} seeds. Regret is the accuracy under "
        f"attack that is missing to the best of a grid of {own['points']}, on test "
        f"images, of settings trained again with {own['again']} seeds; intervals are "
        "Student's t at 95 % over the seeds of the search."
    )
    return Table(header, tuple(row for one in found for row in rows(one)), caption, 2)
