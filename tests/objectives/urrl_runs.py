"""Small objectives with URRL's term, and the term written out."""

import math
from typing import Any

import torch
from torch import Tensor

from rrl_dist.core.batch import Batch
from rrl_dist.data.augmix import AugMix
from rrl_dist.objectives.around import Around
from rrl_dist.objectives.moco import MoCo
from rrl_dist.objectives.objective import Objective
from rrl_dist.objectives.simclr import SimCLR
from rrl_dist.objectives.supervised import Supervised
from rrl_dist.objectives.urrl import URRL
from tests.objectives.apart import literal_cosine
from tests.objectives.harness import small_objective
from tests.objectives.tarrl_runs import NOW

AUGMIX = AugMix(severity=10.0, width=3, depth=-1, alpha=1.0)


def around(base: Objective | str, **changed: Any) -> URRL:
    """In train mode."""
    options: dict[str, Any] = {
        "augmix": AUGMIX,
        "mixed": 1,
        "weight": 12.0,
        "ramp": NOW,
        "form": "auto",
        "temperature": 0.2,
        "seed": 0,
    }
    inside = small_objective(base) if isinstance(base, str) else base
    made = URRL(base=inside, **{**options, **changed})
    made.train()
    return made


def literal_divergence(rows: list[Tensor]) -> Tensor:
    """Jensen-Shannon of logits, each [K], from probabilities, one at a time."""
    ps = [[float(v) for v in torch.exp(r.double())] for r in rows]
    ps = [[v / sum(p) for v in p] for p in ps]
    total = 0.0
    for p in ps:
        for j, value in enumerate(p):
            mean = sum(q[j] for q in ps) / len(ps)
            total += value * math.log(value / mean) if value else 0.0
    return torch.tensor(total / len(ps), dtype=torch.float64)


def of_three(objective: URRL, batch: Batch) -> tuple[Tensor, ...]:
    """Features of the clean view and of both mixtures, in one pass, [N, D] each."""
    clean, mixed = batch.extras["urrl_clean"], batch.extras["urrl_mixed"]
    h: Tensor = objective.encoder(torch.cat([clean, mixed]))
    return h.chunk(3)


def literal_logits(base: Objective, h: list[Tensor]) -> list[Tensor]:
    """Of clean and mixed features, [N, K] each, as the page has them."""
    joined = torch.cat(h)
    if isinstance(base, Supervised):
        return list(base.head(joined).chunk(3))
    assert isinstance(base, SimCLR | MoCo)
    z = base.projector(joined)
    z = z / z.norm(dim=1, keepdim=True)
    keys = z[: len(h[0])] if isinstance(base, SimCLR) else base.queues[1]
    return list((z @ keys.T / 0.2).chunk(3))


def divergence_of(logits: list[Tensor]) -> Tensor:
    """Mean over rows, with gradient; probabilities and not their logarithms."""
    ps = [each.double().exp() / each.double().exp().sum(1, True) for each in logits]
    mean = (ps[0] + ps[1] + ps[2]) / 3
    each = torch.stack([(p * (p / mean).log()).sum(1) for p in ps])
    return each.mean()


def features_apart(h: list[Tensor]) -> Tensor:
    """Mean of 1 - cos to the clean features, which are constants."""
    clean = h[0].detach()
    none = clean.new_zeros(())
    pairs = [(m, c) for mixed in h[1:] for m, c in zip(mixed, clean, strict=True)]
    return torch.stack([literal_cosine(m, c, none) for m, c in pairs]).mean().double()


def assert_equal_with_gradients(
    objective: URRL, batch: Batch, weight: float, js: bool
) -> None:
    """The loss is the base's and the literal term's, and so is its gradient."""
    named = {k: p for k, p in objective.named_parameters() if p.requires_grad}
    h = list(of_three(objective, batch))
    inside = objective.base
    while isinstance(inside, Around):
        inside = inside.base
    term = divergence_of(literal_logits(inside, h)) if js else features_apart(h)
    wanted = objective.base(batch)["loss"].double() + weight * term
    expected = torch.autograd.grad(wanted, list(named.values()), allow_unused=True)
    terms = objective(batch)
    torch.testing.assert_close(terms["urrl_consistency"].double(), term.detach())
    torch.testing.assert_close(terms["loss"].double(), wanted, rtol=1e-5, atol=1e-6)
    found = torch.autograd.grad(terms["loss"], list(named.values()), allow_unused=True)
    for key, one, other in zip(named, found, expected, strict=True):
        assert one is not None, key
        torch.testing.assert_close(one, other, rtol=2e-3, atol=2e-5, msg=key)
    assert float(term.detach()) > 1e-4, "the three differ"
