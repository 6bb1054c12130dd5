"""What docs/evaluation.md says that results.json holds is what it holds."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from rrl_dist.attacks import Linf
from rrl_dist.core.storage import read_json
from rrl_dist.evaluate import evaluate
from rrl_dist.evaluate.comparison import compare
from rrl_dist.evaluate.entries import Entry
from tests.training.stages import composed

PAGE = Path(__file__).parents[2] / "docs" / "evaluation.md"
# Keys of these are names.
NAMED = {
    "components": "COMPONENT",
    "arms": "ARM",
    "tasks": "TASK",
    "sigmas": "LAYER",
    "checks": "CHECK",
    "figures": "FIGURE",
    "thresholds": "THRESHOLD",
}
SHARE = {"value", "low", "high", "count"}
BELOW = ("vulnerability.", "corruptions.")  # which have tables of their own
PGD = {
    "_target_": "rrl_dist.attacks.projected_gradient.PGD",
    "_partial_": True,
    "steps": 2,
    "relative_step": 0.5,
    "restarts": 1,
    "random_start": True,
}
CASCADE = {
    "_target_": "rrl_dist.attacks.cascade.Cascade",
    "label": "in-turn",
    "attacks": {"pgd": PGD},
}
SUITE = {"attacks": {"in_turn": CASCADE}, "micro_batch": 16, "curve": None}


def documented(table: str) -> set[str]:
    """The keys of a table of the page."""
    marked = rf"<!-- keys: {table} -->\n(.*?)<!-- end -->"
    found = re.search(marked, PAGE.read_text(), re.S)
    assert found is not None
    keys = re.findall(r"^\| `([^`]+)` \|", found[1], re.M)
    assert len(keys) == len(set(keys))
    return set(keys)


def keys_of(value: Any, at: str = "") -> Iterator[str]:
    """Paths to all that is told: shares and means are one thing each."""
    if isinstance(value, list):
        yield from (key for each in value for key in keys_of(each, f"{at}[]"))
        return
    if not isinstance(value, Mapping):
        yield at
        return
    told = set(value) >= SHARE
    if told:
        yield at
    name = NAMED.get(at.rpartition(".")[2])
    for key in set(value) - (SHARE if told else set()):
        yield from keys_of(value[key], f"{at}.{name or key}".lstrip("."))


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of a module that shows no features, by attacks in turn, ended early."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(150, 3, 4, 4, generator=generator)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)).eval()
    found = evaluate(
        model,
        TensorDataset(x, torch.arange(150) % 3),
        ball=Linf(0.02),
        suite=SUITE,
        out=tmp_path_factory.mktemp("stopped"),
        threads=1,
        stop_when="half_width<0.4",
        stop_every=64,
        verdict=True,
        verdict_images=20,
    )
    assert found["stopped"] is not None
    return found


def test_an_evaluation_holds_the_keys_of_its_table(
    stopped: dict[str, Any], represented: Path
) -> None:
    whole = read_json(represented / "results.json")
    found = {*keys_of(stopped), *keys_of(whole)}
    found = {key for key in found if not key.startswith(BELOW)} - {"bound"}
    assert found == documented("evaluation")


def test_a_run_holds_the_keys_of_its_table(
    stopped: dict[str, Any], represented: Path
) -> None:
    whole = read_json(represented / "results.json")
    config = composed()
    arm = next(iter(config["arms"]))
    plain = compare(config, {Entry(arm): whole})
    cut = {**config, "tasks": {"even": [0, 2], "odd": [1, 3]}}
    each = {
        Entry(arm, task, "slf", seed): whole if seed else stopped
        for task in ("even", "odd")
        for seed in (0, 1)
    }
    several = compare(cut, each)
    own = documented("run") - {"arms.ARM"}
    of_parts = {f"arms.ARM.{key}" for key in ("arm", "task", "head_seed")}
    of_parts |= {key for key in own if key.startswith(("heads[]", "tasks."))}
    inside = {f"arms.ARM.{key}" for key in documented("evaluation") | {"bound"}}
    assert set(keys_of(plain)) - inside == own - of_parts
    assert set(keys_of(several)) - inside == own
    assert "schema" not in plain["arms"][arm]
