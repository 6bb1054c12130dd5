"""Whether an evaluation has a verdict, and what is measured for it."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from rrl_dist.core.columns import Columns
from rrl_dist.core.store import Store
from rrl_dist.evaluate.order import work_of
from rrl_dist.evaluate.plan import Probing, Suite
from rrl_dist.evaluate.verdict.evidence import evidence_of, full_parts, kind_of
from rrl_dist.evaluate.verdict.judge import verdict
from rrl_dist.evaluate.verdict.probes import Prober, Probes, work_of_probes

AUTO = "auto"
# Of the suite's passes: what "auto" may add to them.
SHARE = 0.2


def planned(
    job: Mapping[str, Any], suite: Suite, *, samples: int, classes: int
) -> Probing | None:
    """What is measured for the verdict; None where there is to be none.

    None too where no attack along gradients is made at a radius above 0: then nothing
    is claimed to be robust.

    Args:
        job: `verdict`, true, false or "auto": where it adds at most `SHARE` to the
            passes of the suite; and `verdict_images`. Without them there is none.
        suite: of the evaluation.
        samples, classes: that it has.
    """
    asked = job.get("verdict", False)
    white = any(kind_of(part) == "white" for part in full_parts(suite))
    if not asked or not white or suite.ball is None or suite.ball.eps == 0:
        return None
    count = min(int(job["verdict_images"]), samples)
    passes = count * work_of_probes(square=not _asks_blind(suite))
    if asked == AUTO and passes > SHARE * samples * _work(suite, classes):
        return None
    return Probing(count)


def prober_of(suite: Suite, model: nn.Module, seed: int, size: int) -> Prober:
    """What measures an evaluation's probes; it asks Square where the suite has no
    attack that does without gradients.

    Args:
        suite: one with a verdict planned.
        model: the classifier.
        seed: of the evaluation.
        size: images of every call of the model.
    """
    assert suite.ball is not None, "nothing to be judged"
    return Prober(model, suite.ball, seed, size, square=not _asks_blind(suite))


def judged(
    probing: Probing | None, store: Store, rows: Mapping[str, Columns], suite: Suite
) -> dict[str, Any] | None:
    """The verdict on a finished evaluation, as `results.json` holds it.

    Args:
        probing: what was measured, or None.
        store: that has it.
        rows: by component.
        suite: what was run.
    """
    if probing is None:
        return None
    probes = Probes(**store.read_json(probing.file))
    return verdict(evidence_of(probes, rows, suite))


def _asks_blind(suite: Suite) -> bool:
    return any(kind_of(part) == "black" for part in full_parts(suite))


def _work(suite: Suite, classes: int) -> float:
    """Passes of a sample that stays right, of the attacks that tell theirs."""
    alone = [
        a for n, a in suite.attacks.items() if a is not None and n not in suite.full
    ]
    return sum(work_of(part, classes) or 0.0 for part in (*full_parts(suite), *alone))
