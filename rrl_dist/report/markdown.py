"""A report as a folder: one Markdown page and its pictures."""

import re
from collections.abc import Sequence
from pathlib import Path

from rrl_dist.core.errors import UserError
from rrl_dist.core.storage import write_bytes
from rrl_dist.report.gallery import gallery
from rrl_dist.report.load import Run, load_run
from rrl_dist.report.plots import robustness_curve
from rrl_dist.report.tables import escape, lead, robustness_table


def write_report(run_folders: Sequence[Path], out_folder: Path) -> list[Path]:
    """Write `report.md`, and for each run `curve.png` and `gallery.png`.

    With several runs, pictures carry the run's name: `curve-NAME.png`. A run without
    curves or without `gallery/ARM.npz` files gets no such picture.

    Returns:
        What was written, `report.md` first.

    Raises:
        UserError: if there is no run, two have one name, or one cannot be read.
    """
    if not run_folders:
        raise UserError("no run to report on; name at least one run")
    runs = [load_run(folder) for folder in run_folders]
    endings = _endings(runs)
    pictures: list[Path] = []
    parts = ["# " + escape(", ".join(run.name for run in runs))]
    for run in runs:
        prefix = f"{run.name}: " if len(runs) > 1 else ""
        parts.append(escape(prefix + lead(run)))
    parts.append(robustness_table(runs).to_markdown().rstrip())
    for run, folder, ending in zip(runs, run_folders, endings, strict=True):
        drawn = _pictures(run, folder, out_folder, ending)
        if drawn and len(runs) > 1:
            parts.append(f"## {escape(run.name)}")
        parts += [f"![{title}]({path.name})" for title, path in drawn]
        pictures += [path for _, path in drawn]
    page = out_folder / "report.md"
    write_bytes(page, ("\n\n".join(parts) + "\n").encode())
    return [page, *pictures]


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
    """Draw what the run has; titles and files."""
    drawn = []
    if any(arm.curve for arm in run.arms):
        path = out_folder / f"curve{ending}.png"
        robustness_curve(run, path)
        drawn.append(("Robust accuracy against attack size", path))
    files = {arm.name: folder / "gallery" / f"{arm.name}.npz" for arm in run.arms}
    present = {arm: file for arm, file in files.items() if file.is_file()}
    if present:
        path = out_folder / f"gallery{ending}.png"
        gallery(present, path)
        drawn.append(("Images, perturbations and attacked images", path))
    return drawn
