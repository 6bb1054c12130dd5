"""How much of what a sweep measures is due to each of its settings.

Hutter et al. 2014, "An efficient approach for assessing hyperparameter importance":
the share of the variance over the space, of a forest that is fitted to the trials.
"""

from __future__ import annotations

import math
from pathlib import Path

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

from rrl_dist.report.figures import PALE, drawing
from rrl_dist.tune.dimension import Choices, Dimension, Floats, Whole
from rrl_dist.tune.findings import Findings, Measure
from rrl_dist.tune.marks import GOOD, frame, title
from rrl_dist.tune.record import Record

LEAST = 4  # complete trials: a forest of fewer says nothing


def importances(findings: Findings, place: int = 0) -> dict[str, float]:
    """Shares of the settings that all trials have, by the dimensions' names, the
    largest first; their sum is 1.

    Nothing if fewer than 4 trials are complete, or all have one value.

    Args:
        findings: of the sweep.
        place: of the aim.
    """
    always = [d for d in findings.space.dimensions if not d.when]
    trials = [r for r in findings.records if _usable(r, always, place)]
    values = {record.values[place] for record in trials}
    if len(trials) < LEAST or len(values) < 2 or not always:
        return {}
    # Out of the sweep's own database, so that this needs no more than its records.
    optuna.logging.set_verbosity(optuna.logging.CRITICAL)
    study = optuna.create_study()
    spread = {dimension.name: _distribution(dimension) for dimension in always}
    for record in trials:
        settings = {name: record.settings[name] for name in spread}
        value = record.values[place]
        study.add_trial(
            create_trial(params=settings, distributions=spread, value=value)
        )
    forest = FanovaImportanceEvaluator(seed=0)
    found = get_param_importances(study, evaluator=forest)
    return {name: float(share) for name, share in found.items()}


def _usable(record: Record, always: list[Dimension], place: int) -> bool:
    drawn = all(dimension.name in record.settings for dimension in always)
    complete = record.state == "complete" and drawn
    return complete and math.isfinite(record.values[place])


def _distribution(dimension: Dimension) -> BaseDistribution:
    domain = dimension.domain
    if isinstance(domain, Floats):
        step, log = domain.step, domain.log
        return FloatDistribution(domain.low, domain.high, log=log, step=step)
    if isinstance(domain, Whole):
        step, log = domain.step, domain.log
        return IntDistribution(domain.low, domain.high, log=log, step=step)
    assert isinstance(domain, Choices)
    return CategoricalDistribution(domain.values)


def importance_picture(findings: Findings, path: Path) -> bool:
    """Draw a bar for each setting that all trials have, a panel for each aim. Returns
    whether there was anything to draw."""
    aims = findings.aims.aims
    found = [importances(findings, place) for place in range(len(aims))]
    if not any(len(shares) > 1 for shares in found):
        return False  # one setting has all
    names = max(found, key=len)
    with drawing(path, width=8.0, height=1.9 + 0.34 * len(names)) as figure:
        figure.set_layout_engine("constrained", w_pad=0.1, h_pad=0.1)
        panels = figure.subplots(1, len(aims), sharey=True, squeeze=False)[0]
        for axes, aim, shares in zip(panels, aims, found, strict=True):
            frame(axes)
            axes.grid(visible=False, axis="y")
            widths = [100 * shares.get(name, 0.0) for name in names]
            bars = axes.barh(range(len(names)), widths, color=GOOD, height=0.6)
            axes.bar_label(bars, fmt="%.0f", padding=3, fontsize=9, color=PALE)
            axes.set_yticks(range(len(names)), [findings.short[n] for n in names])
            axes.set_ylim(len(names) - 0.5, -0.5)
            axes.set_xlim(0, 110)
            axes.set_xticks([0, 50, 100])
            about = Measure.of(aim.measure).title.partition(" (")[0]
            axes.set_xlabel(f"share of the variance of\n{about} (%)")
        title(figure, findings, _told(findings))
    return True


def _told(findings: Findings) -> str:
    number = sum(record.state == "complete" for record in findings.records)
    apart = sum(bool(dimension.when) for dimension in findings.space.dimensions)
    left = f", without {apart} settings that not all trials have" if apart else ""
    return f"by a forest on the {number} that are complete{left}"
