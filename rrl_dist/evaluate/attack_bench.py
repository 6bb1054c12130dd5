"""AutoAttack beside its authors' code: one model, the same images and threads, in turn.

A round runs each of them once, and the next begins with another, so that what else the
machine does falls on all. Images are judged by one judge, the model in float32.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from rrl_dist.attacks.balls import Ball
from rrl_dist.attacks.calls import autoattack
from rrl_dist.attacks.margins import misclassified
from rrl_dist.attacks.passes import counted
from rrl_dist.attacks.precision import check_precision
from rrl_dist.core.errors import UserError

THEIRS = "pyautoattack"
NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
# Of the radius: their images may be some roundings outside.
_OUTSIDE = 1e-4

Contender = Callable[[nn.Module, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """What is attacked, and how.

    Attributes:
        model: [N, C, H, W] in [0, 1] -> logits [N, K], in eval mode, on a CPU.
        x: [N, C, H, W] images.
        y: [N] int64 labels.
        ball: the threat model.
        version: of AutoAttack.
        seed: of all draws.
        batch_size: images that the authors' code is given at a time.
    """

    model: nn.Module
    x: Tensor
    y: Tensor
    ball: Ball
    version: str
    seed: int
    batch_size: int


@dataclass(frozen=True)
class Run:
    """One of them in one round.

    Attributes:
        seconds: of the clock.
        cpu_seconds: of all threads of this process, those that wait busily included.
        forward, backward: passes of an image, fillings included, for each image given.
        robust: how many images stay right.
        wrong: places of those that do not.
    """

    seconds: float
    cpu_seconds: float
    forward: float
    backward: float
    robust: int
    wrong: tuple[int, ...]


def compare(
    case: Case,
    precisions: Sequence[str],
    rounds: int,
    notify: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Run all of them `rounds` times.

    Returns:
        by name, `runs`, and of ours `ratio`: its time over theirs in the same round,
        the median of rounds and their ends.

    Raises:
        UserError: there is no such precision, or the authors' code is not installed.
    """
    for precision in precisions:
        check_precision(precision)
    if rounds < 1:
        raise UserError(f"attack.rounds={rounds}; set at least 1")
    contenders = {THEIRS: theirs(case)}
    contenders |= {name: partial(ours, case, precision=name) for name in precisions}
    runs: dict[str, list[Run]] = {name: [] for name in contenders}
    for turn in range(rounds):
        for name in _rotated(list(contenders), turn):
            runs[name].append(measured(case, contenders[name]))
            notify(f"round {turn + 1}: {name} {runs[name][-1].seconds:.1f} s")
    return {name: _told(runs[name], runs[THEIRS], name) for name in contenders}


def _rotated(names: list[str], turn: int) -> list[str]:
    start = turn % len(names)
    return names[start:] + names[:start]


def _told(own: Sequence[Run], others: Sequence[Run], name: str) -> dict[str, Any]:
    told: dict[str, Any] = {"runs": [asdict(run) for run in own]}
    if name != THEIRS:
        pairs = list(zip(own, others, strict=True))
        told["ratio"] = _spread([a.seconds / b.seconds for a, b in pairs])
        told["cpu_ratio"] = _spread([a.cpu_seconds / b.cpu_seconds for a, b in pairs])
    return told


def _spread(ratios: Sequence[float]) -> dict[str, float]:
    return {"median": median(ratios), "low": min(ratios), "high": max(ratios)}


def ours(
    case: Case, model: nn.Module, x: Tensor, y: Tensor, *, precision: str
) -> Tensor:
    """Images [N, C, H, W] of `autoattack`."""
    return autoattack(
        model,
        x,
        y,
        ball=case.ball,
        version=case.version,
        seed=case.seed,
        batch_size=case.batch_size,
        precision=precision,
    )


def theirs(case: Case) -> Contender:
    """The authors' own evaluation.

    Raises:
        UserError: it is not installed.
    """
    try:
        from pyautoattack.autoattack import AutoAttack as Official
    except ModuleNotFoundError:
        raise UserError(
            "rrl bench attack needs the authors' code; pip install 'rrl_dist[dev]'"
        ) from None

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        suite = Official(
            model,
            norm=NORMS[case.ball.norm],
            eps=case.ball.eps,
            seed=case.seed,
            version=case.version,
        )
        # Their code seeds torch's own generator.
        with torch.random.fork_rng(devices=[]):
            x_adv: Tensor
            x_adv, _ = suite.run_standard_evaluation(x, y, batch_size=case.batch_size)
        return x_adv

    return attack


def measured(case: Case, attack: Contender) -> Run:
    """One run.

    Raises:
        UserError: its images are outside the ball.
    """
    x, y = case.x.clone(), case.y.clone()
    with counted(case.model) as passes:
        begin, busy = time.perf_counter(), time.process_time()
        x_adv = attack(case.model, x, y)
        seconds = time.perf_counter() - begin
        cpu_seconds = time.process_time() - busy
    distance = case.ball.distance(x_adv, case.x)
    if not bool((distance <= case.ball.eps * (1 + _OUTSIDE)).all()):
        raise UserError("images outside the ball; this is no comparison")
    wrong = judged(case, x_adv)
    count = len(x)
    return Run(
        seconds,
        cpu_seconds,
        passes.forward / count,
        passes.backward / count,
        int((~wrong).sum()),
        tuple(wrong.nonzero()[:, 0].tolist()),
    )


def judged(case: Case, x_adv: Tensor) -> Tensor:
    """[N] bool, which of the images [N, C, H, W] the model gets wrong."""
    with torch.no_grad():
        answers = [
            misclassified(case.model(x), y)
            for x, y in zip(*(torch.split(c, 32) for c in (x_adv, case.y)), strict=True)
        ]
    return torch.cat(answers)


def sentence(found: Mapping[str, Any]) -> str:
    """What a page quotes of `attack.json`."""
    contenders, count = found["contenders"], found["images"]
    rounds, other = len(contenders[THEIRS]["runs"]), contenders[THEIRS]["runs"][0]
    parts = []
    for name, told in contenders.items():
        if name == THEIRS:
            continue
        ratio, run = told["ratio"], told["runs"][0]
        parts.append(
            f"{ratio['median']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f}) of its "
            f"time in {name}, {run['robust']} of {count} images right"
        )
    return (
        f"`rrl bench attack`, {found['threads']} CPU threads, "
        f"{rounds} {'round' if rounds == 1 else 'rounds'}, {found['model']}, "
        f"{found['ball']}: beside pyautoattack, which leaves {other['robust']} of "
        f"{count} right in {other['seconds']:.0f} s, `autoattack` takes "
        f"{'; '.join(parts)}."
    )
