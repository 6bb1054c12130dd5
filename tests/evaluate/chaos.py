"""An evaluation whose actors, second node and driver are killed at random moments.

    python -m tests.evaluate.chaos KILLS FOLDER [--seed N]

runs it on a Ray cluster of its own, again and again until all kills are done, and
checks each time that it ends as if nothing had been killed, and what was done twice.
"""

import argparse
import random
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from rrl_dist.core.records import table_of, to_bytes
from tests.evaluate.kills import KINDS, Run, Tally, tally
from tests.evaluate.nodes import Say, started_head
from tests.evaluate.witness import SAMPLES, small_job


def check(run: Run, undisturbed: Path) -> Tally:
    """Holds a run against one that nothing has happened to."""
    from tests.evaluate.jobs import rows_in

    rows, expected = rows_in(run.folder), rows_in(undisturbed)
    contents = [to_bytes(table_of(found), {}) for found in (rows, expected)]
    assert contents[0] == contents[1], "other rows"
    for name in ("results.json", "survey.json", "manifest.json"):
        mine, theirs = ((f / name).read_bytes() for f in (run.folder, undisturbed))
        assert mine == theirs, f"another {name}"
    counted = Counter(row.component for row in rows)
    assert set(counted.values()) == {SAMPLES}, counted
    assert len({(row.component, row.index) for row in rows}) == len(rows)
    found = tally(run.executions, run.kills)
    assert found.again <= found.in_flight, found
    return found


def plan(kills: int, draw: random.Random) -> list[str]:
    """What to kill, of six or more every kind at least twice."""
    kinds = [*(2 * KINDS)[:kills], *draw.choices(KINDS, k=max(kills - 6, 0))]
    draw.shuffle(kinds)
    return kinds


def chaos(kills: int, folder: Path, *, seed: int, say: Say) -> list[tuple[Run, Tally]]:
    """Run evaluations until so many kills are done.

    Args:
        kills: how many.
        folder: empty or new; receives the evaluations.
        seed: of what is killed when.
        say: told a line for each kill.

    Returns:
        the evaluations, which are as if nothing had been killed.

    Raises:
        AssertionError: one is not.
        NoClusterError: there are no two nodes.
    """
    from tests.evaluate.jobs import run as run_here

    folder.mkdir(parents=True, exist_ok=True)
    draw, done = random.Random(seed), list[tuple[Run, Tally]]()
    left = plan(kills, draw)
    job = small_job(folder)
    with started_head(say) as nodes:
        nodes.start_second()
        begin = time.monotonic()
        run_here(job, folder / "undisturbed", notify=lambda line: None)
        say(f"undisturbed in this process: {time.monotonic() - begin:.0f} s")
        nodes.wait_for_second()
        while left or not done:
            run = Run(nodes, folder / f"run-{len(done) + 1}")
            try:
                _disturb(run, left, draw, say)
            finally:
                run.close()
            done.append((run, check(run, folder / "undisturbed")))
            say(f"{run.folder.name} ended as if nothing had been killed: {done[-1][1]}")
    return done


def _disturb(run: Run, left: list[str], draw: random.Random, say: Say) -> None:
    """Kill what is left to be killed, while the evaluation lasts; then let it end."""
    while left:
        kill = run.kill(left[-1], draw)
        if kill is None:
            return
        left.pop()
        victim = kill.victim
        say(
            f"{time.strftime('%X')} killed {kill.kind} {kill.at - victim.begin:.2f} s "
            f"into {victim.file} (driver {victim.attempt}, node {victim.node}, process "
            f"{victim.pid}): next unit after {kill.seconds:.1f} s; {len(left)} left"
        )
    run.to_its_end()


def summary(done: Sequence[tuple[Run, Tally]]) -> Iterator[str]:
    """Lines for a person."""
    runs, tallies = [run for run, _ in done], [found for _, found in done]
    kills = [kill for run in runs for kill in run.kills]
    kinds = Counter(kill.kind for kill in kills)
    yield f"{len(kills)} kills in {len(runs)} evaluations: " + ", ".join(
        f"{count} {kind}" for kind, count in sorted(kinds.items())
    )
    units, executions, in_flight, again, copies = (
        sum(getattr(found, name) for found in tallies)
        for name in ("units", "executions", "in_flight", "again", "copies")
    )
    yield (
        f"{units} units, begun {executions} times: of {in_flight} in flight at kills "
        f"{again} done again, and {copies} second copies"
    )
    used = {one.node for run in runs for one in run.executions} - {"head"}
    yield (
        f"{sum(run.attempt for run in runs)} drivers; "
        f"{runs[0].nodes.started} second nodes, of which {len(used)} did work"
    )
    for kind in (*kinds, ""):
        times = [kill.seconds for kill in kills if kind in ("", kill.kind)]
        yield (
            f"seconds until the next unit was done after {kind or 'any'} kill: "
            f"{statistics.median(times):.1f} median, {max(times):.1f} at worst"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kills", type=int)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    asked, begin = parser.parse_args(), time.monotonic()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    say = partial(print, flush=True)
    for line in summary(chaos(asked.kills, asked.folder, seed=asked.seed, say=say)):
        say(line)
    say(f"{time.monotonic() - begin:.0f} s in all")


if __name__ == "__main__":
    main()
