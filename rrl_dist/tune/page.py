"""What a sweep found as a folder: a Markdown page, its pictures, and all numbers."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rrl_dist.core.storage import write_bytes, write_json
from rrl_dist.report.tables import escape
from rrl_dist.tune.aims import Estimate
from rrl_dist.tune.findings import Findings
from rrl_dist.tune.pictures import draw_pictures
from rrl_dist.tune.record import Record
from rrl_dist.tune.table import answer, trials_table


def write_page(folder: Path, findings: Findings) -> list[Path]:
    """Write `sweep.md`, `trials.json` and the pictures that there is something to see
    in.

    Args:
        folder: it need not exist.
        findings: of the sweep, which may go on.

    Returns:
        What was written, `sweep.md` first.

    Raises:
        UserError: the disk does not take it.
    """
    numbers = folder / "trials.json"
    write_json(numbers, as_json(findings))
    drawn = draw_pictures(findings, folder)
    parts = [f"# {escape(findings.name)}", escape(answer(findings))]
    if findings.records:
        parts.append(trials_table(findings, findings.ordered).to_markdown().rstrip())
    parts += [f"![{title}]({path.name})" for title, path in drawn.items()]
    page = folder / "sweep.md"
    write_bytes(page, ("\n\n".join(parts) + "\n").encode())
    return [page, numbers, *drawn.values()]


def as_json(findings: Findings) -> dict[str, Any]:
    """All trials by growing number. JSON has no NaN: such a number becomes null."""
    aims = findings.aims
    best = [record.number for record in findings.front]
    return {
        "name": findings.name,
        "aims": [{"measure": a.measure, "maximize": a.maximize} for a in aims.aims],
        "floors": dict(aims.floors),
        "front": sorted(best),
        "trials": [
            _trial(record)
            for record in sorted(findings.records, key=lambda record: record.number)
        ],
    }


def _trial(record: Record) -> dict[str, Any]:
    return {
        "number": record.number,
        "state": record.state,
        "feasible": record.feasible,
        "settings": dict(record.settings),
        "values": [_finite(value) for value in record.values],
        "violations": [_finite(value) for value in record.violations],
        "measured": _estimates(record.measured),
        "masked": list(record.masked),
        "looks": [
            {
                "step": look.step,
                "value": look.value,
                "low": look.low,
                "high": look.high,
                "count": look.count,
            }
            for look in record.looks
        ],
        "why": record.why,
        "seconds": record.seconds,
        "started": None if record.started is None else record.started.isoformat(),
        "ended": None if record.ended is None else record.ended.isoformat(),
    }


def _estimates(measured: Mapping[str, Estimate]) -> dict[str, Any]:
    return {
        name: {key: _finite(getattr(found, key)) for key in ("value", "low", "high")}
        for name, found in measured.items()
    }


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None
