"""A report as a folder: one Markdown page and its pictures."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import write_bytes, write_json
from rrl_dist.report.calibration import calibration_table
from rrl_dist.report.cascades import cascade_table
from rrl_dist.report.corruption import corruption_table
from rrl_dist.report.distances import distances_table
from rrl_dist.report.entries import are_seeds, heads_together
from rrl_dist.report.gallery import gallery
from rrl_dist.report.labels import head_seeds
from rrl_dist.report.load import load_run
from rrl_dist.report.measures import bound_table, measures_table
from rrl_dist.report.overview import overview_table
from rrl_dist.report.plots import robustness_curve
from rrl_dist.report.protocols import protocols_table
from rrl_dist.report.reliability import reliability_diagram
from rrl_dist.report.run import Run
from rrl_dist.report.seeds import lead_of_seeds, seeds_table
from rrl_dist.report.tables import Table, attacked, escape, lead, robustness_table
from rrl_dist.report.terms import as_json, compare_terms, terms_table
from rrl_dist.report.transfers import transfer_table
from rrl_dist.report.verdicts import noted
from rrl_dist.report.vulnerability import vulnerability_table

EACH_SEED, BOUND = "Each seed", "Bound on the adversarial loss"
OVERVIEW = "Side by side"
EACH_HEAD = "Each head"
CASCADES = "After each attack"
TRANSFERS = "Images made on others"
TOO_LONG = (EACH_SEED, EACH_HEAD, BOUND)  # for a terminal


def write_report(
    run_folders: Sequence[Path], out_folder: Path, *, against: str | None
) -> list[Path]:
    """Write `report.md`, and for each run `curve.png`, `reliability.png` and
    `gallery.png`.

    Where more than accuracy was measured, the methods side by side are in `overview.md`
    too, calibration errors in `calibration.md`, and errors on corrupted images in
    `corruptions.md`; where arms were judged by several protocols or heads, these are in
    `protocols.md`.

    With several runs, pictures carry the run's name: `curve-NAME.png`. A run without
    curves or without `gallery/ARM.npz` files gets no such picture.

    Args:
        run_folders: finished runs. Those that differ in their seed alone share rows.
        out_folder: where the report goes.
        against: an arm that all others are set against, in `terms.md` and
            `terms.json`; or None.

    Returns:
        What was written, `report.md` first.

    Raises:
        UserError: if there is no run, two have one name, one cannot be read, or arms
            cannot be set against `against`.
    """
    if not run_folders:
        raise UserError("no run to report on; name at least one run")
    runs = [load_run(folder) for folder in run_folders]
    endings = _endings(runs)
    alone = [] if against is None else _terms(runs, out_folder, against)
    alone += _alone("overview.md", overview_table(runs), runs, out_folder)
    alone += _alone("protocols.md", protocols_table(runs), runs, out_folder)
    alone += _alone("calibration.md", calibration_table(runs), runs, out_folder)
    alone += _alone("corruptions.md", corruption_table(runs), runs, out_folder)
    pictures: list[Path] = []
    parts = ["# " + escape(", ".join(run.name for run in runs))]
    parts += [escape(sentence) for sentence in leads(runs)]
    for title, table in tables(runs, against).items():
        parts += [f"## {title}"] if title else []
        parts.append(table.to_markdown().rstrip())
    for run, folder, ending in zip(runs, run_folders, endings, strict=True):
        drawn = _pictures(run, folder, out_folder, ending)
        parts += [f"## {escape(run.name)}"] if drawn and len(runs) > 1 else []
        parts += [f"![{title}]({path.name})" for title, path in drawn]
        pictures += [path for _, path in drawn]
    page = out_folder / "report.md"
    write_bytes(page, ("\n\n".join(parts) + "\n").encode())
    return [page, *alone, *pictures]


def leads(runs: Sequence[Run]) -> list[str]:
    """The result in a sentence: of the seeds together, or of each run that attacked."""
    if are_seeds(runs):
        return [lead_of_seeds(runs)] if attacked(runs) else []
    names = [f"{run.name}: " if len(runs) > 1 else "" for run in runs]
    told = zip(names, runs, strict=True)
    return [name + _lead(run) for name, run in told if attacked([run])]


def _lead(run: Run) -> str:
    return lead(run) if head_seeds(run) is None else lead_of_seeds([run])


def tables(runs: Sequence[Run], against: str | None) -> dict[str, Table]:
    """What there is to show, by title; accuracy comes first and has none."""
    seeds = are_seeds(runs)
    each, protocols = robustness_table(runs), protocols_table(runs)
    if protocols is not None:
        found = {"": protocols, EACH_SEED if seeds else EACH_HEAD: each}
    elif seeds:
        found = {"": seeds_table(runs), EACH_SEED: each}
    else:
        found = {"": each}
    if against is not None:
        found[f"Against {escape(against)}"] = terms_table(
            compare_terms(runs, against), runs, against
        )
    others = {
        OVERVIEW: overview_table(runs),
        CASCADES: cascade_table(runs),
        TRANSFERS: transfer_table(runs),
        "Representation": measures_table(runs),
        "Distances": distances_table(runs),
        "Representation vulnerability": vulnerability_table(runs),
        "Corruptions": corruption_table(runs),
        "Calibration": calibration_table(runs),
        BOUND: bound_table(runs),
    }
    found |= {k: table for k, table in others.items() if table is not None}
    return {title: noted(table, runs) for title, table in found.items()}


def _terms(runs: Sequence[Run], out_folder: Path, against: str) -> list[Path]:
    found = compare_terms(runs, against)
    page, numbers = out_folder / "terms.md", out_folder / "terms.json"
    table = noted(terms_table(found, runs, against), runs)
    write_bytes(page, table.to_markdown().encode())
    write_json(numbers, as_json(found, runs, against))
    return [page, numbers]


def _alone(
    name: str, table: Table | None, runs: Sequence[Run], out_folder: Path
) -> list[Path]:
    """Write a table that there is as a page of its own."""
    if table is None:
        return []
    page = out_folder / name
    write_bytes(page, noted(table, runs).to_markdown().encode())
    return [page]


def _endings(runs: Sequence[Run]) -> list[str]:
    """What sets the runs' picture files apart."""
    if len(runs) == 1:
        return [""]
    endings = ["-" + re.sub(r"[^\w.-]+", "-", run.name) for run in runs]
    for ending, run in zip(endings, runs, strict=True):
        if endings.count(ending) > 1:
            raise UserError(f"two runs are named {run.name}; report on them apart")
    return endings


def _pictures(
    run: Run, folder: Path, out_folder: Path, ending: str
) -> list[tuple[str, Path]]:
    """Draw what the run has, of several heads the first; titles and files."""
    run = replace(run, arms=tuple(heads[0] for heads in heads_together(run)))
    drawn = []
    if any(arm.curve for arm in run.arms):
        path = out_folder / f"curve{ending}.png"
        robustness_curve(run, path)
        drawn.append(("Robust accuracy against attack size", path))
    if any(arm.calibration for arm in run.arms):
        path = out_folder / f"reliability{ending}.png"
        reliability_diagram(run, path)
        drawn.append(("Share right against confidence", path))
    files = {arm.name: folder / "gallery" / f"{arm.name}.npz" for arm in run.arms}
    present = {arm: file for arm, file in files.items() if file.is_file()}
    if present:
        path = out_folder / f"gallery{ending}.png"
        gallery(present, path)
        drawn.append(("Images, perturbations and attacked images", path))
    return drawn
