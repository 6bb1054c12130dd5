"""Several heads of one encoder, trained with several seeds, as one number."""

from collections.abc import Mapping, Sequence
from typing import Any

from rrl_dist.core.aggregate import rounded
from rrl_dist.core.seeds import spread, t_interval
from rrl_dist.evaluate.entries import Entry

Config = Mapping[str, Any]


def over_heads(found: Mapping[Entry, Config]) -> list[dict[str, Any]]:
    """For each arm, task and protocol its accuracies over head seeds.

    Args:
        found: numbers by what they are about; those without a head's seed are left out.

    Returns:
        in the order of `found`: `arm`, `task`, `protocol`, `head_seeds`, and for each
        component and the worst of them `values` by seed, `mean`, `deviation` (n - 1 in
        its denominator) and Student's t interval at 95 %, `low` and `high`, which are
        null of one seed.
    """
    groups: dict[Entry, list[Entry]] = {}
    for entry in found:
        if entry.head_seed is not None:
            groups.setdefault(entry._replace(head_seed=None), []).append(entry)
    return [
        {
            "arm": group.arm,
            **group.parts,
            "head_seeds": [entry.head_seed for entry in entries],
            **_accuracies([found[entry] for entry in entries]),
        }
        for group, entries in groups.items()
    ]


def _accuracies(heads: Sequence[Config]) -> dict[str, Any]:
    named = heads[0]["components"]
    return {
        "components": {
            key: _over([head["components"][key]["value"] for head in heads])
            for key in named
            if all(key in head["components"] for head in heads)
        },
        "worst": _over([head["worst"]["value"] for head in heads]),
    }


def _over(values: Sequence[float]) -> dict[str, Any]:
    found, between = spread(values), t_interval(values)
    numbers = {
        "mean": found.mean,
        "deviation": found.deviation,
        "low": between.low,
        "high": between.high,
    }
    return {
        "values": list(values),
        **{k: None if v is None else rounded(v) for k, v in numbers.items()},
    }
