"""What each check of the verdict measures of networks that hide gradients or do not.

    python -m tests.evaluate.verdict_figures docs/verdict.md

The network of docs/attacks.md is among them where its file is beside the checkout.
"""

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from rrl_dist.attacks import Ball, Linf
from rrl_dist.evaluate import evaluate
from rrl_dist.evaluate.verdict.checks.more_steps import OUTDONE_FAIL, RISES_FAIL
from tests.attacks.three_models import undefended
from tests.evaluate.bench_machine import ABOUT, fixture
from tests.evaluate.masked import (
    TRAINED,
    Grey,
    digits,
    held_out,
    masked_networks,
    robust_networks,
)
from tests.evaluate.simulation import write_between

START, END = "<!-- figures -->", "<!-- /figures -->"
IMAGES, BALL = 64, Linf(0.1)
HEADER = (
    *("network", "clean, attacked", "zero gradients", "randomized", "probabilities"),
    *("without gradients alone", "right in the whole of [0, 1]", "loss rises"),
    *("one step better", "verdict"),
)
Case = tuple[str, nn.Module, Any, Ball]


def cases() -> Iterator[Case]:
    """Names, networks, images and balls."""
    data = held_out(digits(), IMAGES)
    images, labels = (column[:TRAINED] for column in digits())
    robust = robust_networks(digits())
    plain = {"not defended": Grey(undefended(images, labels)).eval()}
    hidden = masked_networks(next(iter(robust.values())))
    for name, model in (robust | plain | hidden).items():
        yield name, model, data, BALL
    if ABOUT.exists():
        model, items = fixture()
        yield "CIFAR-10, Linf 8/255", model, items, Linf(8 / 255)


def row(name: str, found: Mapping[str, Any]) -> list[str]:
    """Cells of the table, from what an evaluation returns."""
    checks = found["verdict"]["checks"]
    clean, worst = found["components"]["clean"], found["worst"]

    def share(check: str, figure: str) -> str:
        value = checks.get(check, {}).get("figures", {}).get(figure)
        if value is None:
            return "\u2013"
        return f"{round(value['value'] * value['count'])} of {value['count']}"

    marked = {
        "zero gradients": ("zero_gradients", share("zero_gradients", "share")),
        "randomized": (
            "randomized",
            f"{checks['randomized']['figures']['change']:.2g}",
        ),
        "probabilities": (
            "probabilities",
            "{smallest:.3g} to {largest:.3g}".format(
                **checks["probabilities"]["figures"]
            ),
        ),
        "alone": ("black_box", share("black_box", "share")),
        "whole": ("growing_radius", share("growing_radius", "share")),
        "rises": ("more_steps", share("more_steps", "rises")),
        "outdone": ("more_steps", share("more_steps", "outdone")),
    }
    steps = checks.get("more_steps", {}).get("figures", {})
    well = {
        "rises": not steps or steps["rises"]["high"] >= RISES_FAIL,
        "outdone": not steps or steps["outdone"]["low"] <= OUTDONE_FAIL,
    }
    cells = [
        text
        if checks.get(check, {}).get("level") != "fail" or well.get(column, False)
        else f"**{text}**"
        for column, (check, text) in marked.items()
    ]
    accuracies = f"{100 * clean['value']:.0f} %, {100 * worst['value']:.0f} %"
    return [name, accuracies, *cells, found["verdict"]["level"]]


def main(page: Path) -> None:
    """Write the table into a page."""
    torch.set_num_threads(1)
    lines = [f"| {' | '.join(HEADER)} |", f"| {' | '.join([':--'] * len(HEADER))} |"]
    passes = 0
    for name, model, data, ball in cases():
        with TemporaryDirectory() as out:
            found = evaluate(
                model,
                data,
                ball=ball,
                out=out,
                suite="quick",
                threads=1,
                verdict=True,
                verdict_images=IMAGES,
                limit=IMAGES,
            )
        verdict = found["verdict"]
        passes = max(passes, verdict["forward"] + verdict["backward"])
        lines.append(f"| {' | '.join(row(name, found))} |")
        print(lines[-1], flush=True)
        for check, each in verdict["checks"].items():
            print("   ", check, each["level"], each["told"], flush=True)
    told = (
        f"`python -m tests.evaluate.verdict_figures docs/verdict.md`, {IMAGES} images, "
        f"suite=quick; at most {passes:,} passes for a verdict, gradients included."
    )
    write_between(page, "\n".join([told, "", *lines]), START, END)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
