"""All checks, and the verdict that is the worst of them."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from rrl_dist.evaluate.verdict import checks
from rrl_dist.evaluate.verdict.evidence import Evidence
from rrl_dist.evaluate.verdict.finding import Finding, Level

Check = Callable[[Evidence], Finding | None]


@cache
def found_checks() -> Mapping[str, Check]:
    """By name: those of the files in `rrl_dist/evaluate/verdict/checks`."""
    names = sorted(module.name for module in pkgutil.iter_modules(checks.__path__))
    modules = {n: importlib.import_module(f"{checks.__name__}.{n}") for n in names}
    return {name: module.check for name, module in modules.items()}


def findings(evidence: Evidence) -> dict[str, Finding]:
    """By check; without those that the suite does not measure."""
    seen = {name: check(evidence) for name, check in found_checks().items()}
    return {name: finding for name, finding in seen.items() if finding is not None}


def told_lines(found: Mapping[str, Any] | None) -> list[str]:
    """A verdict for a person: a line, and one for each check that speaks against it."""
    if found is None:
        return []
    lines = [f"verdict: {found['level']}, of {len(found['checks'])} checks"]
    for name, check in found["checks"].items():
        if check["stronger"] is not None:
            about = f"{name.replace('_', ' ')}: {check['told']}"
            lines.append(f"{check['level']}, {about}; {check['stronger']}")
    return lines


def verdict(evidence: Evidence) -> dict[str, Any]:
    """What `results.json` holds of it; docs/verdict.md tells what that is."""
    seen, probes = findings(evidence), evidence.probes
    worst = max((finding.level for finding in seen.values()), default=Level.OK)
    return {
        "level": worst.verdict,
        "images": len(probes.index),
        "forward": probes.forward,
        "backward": probes.backward,
        "checks": {name: finding.as_dict() for name, finding in seen.items()},
    }
