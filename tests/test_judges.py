"""What arms are judged by: parts, protocols, seeds."""

from pathlib import Path
from typing import Any

import pytest

from rrl_dist.cli.app import CONFIGS
from rrl_dist.cli.overrides import check_overrides
from rrl_dist.core.errors import UserError
from rrl_dist.evaluate.entries import Entry
from rrl_dist.judges import judges_of
from rrl_dist.stages import identifying, probe_stage
from rrl_dist.tasks import Part, cut_tasks
from tests.training.stages import composed, untrained

TWO = ("+protocol@protocols.slf=slf_small", "+protocol@protocols.aff=aff_pgd")
NOWHERE = Path("nowhere")


def config(*overrides: str) -> dict[str, Any]:
    return composed(*overrides)


def whole(given: dict[str, Any]) -> Part:
    return Part(None, given["data"])


def test_one_protocol_for_all_changes_nothing() -> None:
    given = config()
    (judge,) = judges_of(given, [whole(given)])
    assert judge.entry("simclr") == Entry("simclr")
    assert judge.entry("simclr").name == "simclr"
    assert judge.entry("simclr").parts == {}
    assert judge.stage(given, NOWHERE) == probe_stage(given, NOWHERE)


def test_each_part_protocol_and_seed_is_a_judge() -> None:
    given = config(*TWO, "head_seeds=[3,5]", "tasks={a: [0,1], b: [2,3]}")
    judges = judges_of(given, cut_tasks(given))
    names = [judge.entry("deacl").name for judge in judges]
    assert names == [
        f"deacl-{task}-{protocol}-head{seed}"
        for task in "ab"
        for protocol in ("slf", "aff")
        for seed in (3, 5)
    ]
    stage = judges[3].stage(given, NOWHERE)
    assert (stage["seed"], stage["protocol"]) == (5, "aff")
    assert stage["objective"] == given["protocols"]["aff"]["objective"]
    assert stage["data"]["classes"] == [0, 1]
    # Views are given once.
    assert stage["views"] == given["protocol"]["views"]


def test_a_classifier_that_is_there_has_no_head_to_train() -> None:
    given = {k: v for k, v in config("head_seeds=[0,1]").items() if k != "protocol"}
    (judge,) = judges_of(given, [whole(given)])
    assert judge.settings is None


def test_seeds_and_labels_make_other_stages(tmp_path: Path) -> None:
    encoder = untrained(tmp_path / "encoder")
    own = (*TWO, "head_seeds=[0,1]", "+protocol@protocols.few=slf_10")
    given = config(*own)
    stages = [j.stage(given, encoder) for j in judges_of(given, [whole(given)])]
    found = [identifying(stage) for stage in stages]
    assert all(one != other for i, one in enumerate(found) for other in found[:i])
    assert {stage["split"] for stage in stages} == {"train", "train@0.1"}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"head_seeds": []}, r"head_seeds=\[\]; give different whole numbers"),
        ({"head_seeds": [1, 1]}, "give different whole numbers"),
        ({"head_seeds": [-1]}, "give different whole numbers"),
        ({"head_seeds": [0.5]}, "give different whole numbers"),
        ({"head_seeds": [True]}, "give different whole numbers"),
        ({"head_seeds": 3}, "give different whole numbers"),
        ({"protocols": {}}, "names none; choose some by"),
        ({"protocols": "slf"}, "names none"),
        ({"protocols": {"a/b": {}}}, r"protocols\.a/b: .* letters"),
        ({"protocols": {"a": None}}, r"protocols\.a is no protocol"),
        ({"protocols": {"a": {"labels": 1}}}, r"protocols\.a is no protocol"),
    ],
)
def test_mistakes_are_told_in_one_line(changed: dict[str, Any], told: str) -> None:
    given = {**config(), **changed}
    with pytest.raises(UserError, match=told) as error:
        judges_of(given, [whole(given)])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("labels", [0, -0.1, 1.01, "few", None, True, float("nan")])
def test_a_share_of_labels_is_above_0_and_at_most_1(labels: Any) -> None:
    given = config(*TWO)
    given["protocols"]["aff"]["labels"] = labels
    with pytest.raises(UserError, match=r"protocols\.aff\.labels=.* in \(0, 1\]"):
        judges_of(given, [whole(given)])


def test_two_results_of_one_name_are_refused() -> None:
    given = config(*TWO)
    arms, own = given["arms"], given["protocols"]["slf"]
    given |= {"arms": {"a": arms["simclr"], "a-b": arms["simclr"]}}
    given |= {"protocols": {"b-slf": own, "slf": own}}
    with pytest.raises(UserError, match="would both be a-b-slf; rename a protocol"):
        judges_of(given, [whole(given)])


@pytest.mark.parametrize(
    "overrides",
    [
        (*TWO, "protocols.aff.train.epochs=3", "head_seeds=[0,1]"),
        ("+data@tasks.other=cifar10", "tasks.other.size=8", "tasks.other.root=/x"),
    ],
)
def test_the_command_line_takes_them(overrides: tuple[str, ...]) -> None:
    check_overrides("run", CONFIGS, ["experiment=demo", *overrides])


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("protocols=slf", "protocols=slf; set what it holds"),
        ("head_seeds=3", r"head_seeds=3; set a list"),
        ("+protocol@protocols.a=slv", "nearest is slf"),
    ],
)
def test_the_command_line_refuses_others(override: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        check_overrides("run", CONFIGS, ["experiment=demo", override])
