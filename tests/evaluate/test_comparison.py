from rrl_dist.evaluate.comparison import compare, costs, method_name
from rrl_dist.evaluate.entries import Entry
from tests.composing import compose
from tests.training.stages import composed

NUMBERS = {"schema": 1, "worst": {"value": 0.5}, "components": {}, "curve": []}


def test_arms_stand_side_by_side_in_their_order() -> None:
    config = composed()
    numbers = {Entry("deacl"): NUMBERS, Entry("simclr"): {**NUMBERS, "curve": [1]}}
    found = compare(config, numbers)
    assert found["arm_order"] == ["deacl", "simclr"]
    assert (found["norm"], found["eps"]) == ("linf", 0.05)
    assert (found["data"], found["split"], found["seed"]) == ("digits", "test", 0)
    assert found["curve_attack"] == "pgd20"
    arms = found["arms"]
    assert arms["deacl"]["objective"] == "DeACL"
    assert arms["simclr"]["objective"] == "SimCLR"
    assert arms["simclr"]["backbone"] == "SmallCNN"
    assert arms["simclr"]["protocol"] == "slf"
    assert arms["deacl"]["worst"] == {"value": 0.5}
    assert arms["simclr"]["curve"] == [1]
    # Without tasks nothing speaks of them.
    assert "tasks" not in found
    assert not arms["simclr"].keys() & {"arm", "task"}


def test_a_timm_backbone_has_timms_name() -> None:
    config = composed()
    model = {**config["model"], "backbone": {"_target_": "f", "name": "resnet18"}}
    found = compare({**config, "model": model}, {Entry("simclr"): NUMBERS})
    assert found["arms"]["simclr"]["backbone"] == "resnet18"


def test_results_depend_on_nothing_but_numbers_and_settings() -> None:
    one = composed()
    other = composed("storage=/elsewhere", "cluster=local", "cluster.workers=3")
    arms = {Entry("simclr"): NUMBERS, Entry("deacl"): NUMBERS}
    assert compare(one, arms) == compare(other, arms)


def test_an_arm_costs_what_its_teachers_cost_too() -> None:
    arms = composed()["arms"]
    seconds = {
        "pretrain-simclr": 10.0,
        "probe-simclr": 2.0,
        "evaluate-simclr": 1.0,
        "pretrain-deacl": 100.0,
        "probe-deacl": 20.0,
    }
    found = costs(arms, [Entry("simclr"), Entry("deacl")], seconds, "1 x CPU")
    assert found["arms"] == {"simclr": {"seconds": 13.0}, "deacl": {"seconds": 130.0}}
    assert found["stages"]["probe-deacl"] == {"seconds": 20.0}
    assert found["device"] == "1 x CPU"


def test_an_arm_is_there_once_for_each_task() -> None:
    config = {**composed(), "tasks": {"seen": [0, 1], "unseen": ["2", 3]}}
    entries = [
        Entry("deacl", "seen"),
        Entry("deacl", "unseen"),
        Entry("simclr", "seen"),
    ]
    found = compare(config, {entry: NUMBERS for entry in entries})
    assert found["arm_order"] == ["deacl-seen", "deacl-unseen", "simclr-seen"]
    named = {(arm["arm"], arm["task"]): key for key, arm in found["arms"].items()}
    assert named == {(arm, task): f"{arm}-{task}" for arm, task, *_ in entries}
    assert found["arms"]["deacl-unseen"]["objective"] == "DeACL"
    assert found["tasks"] == {"seen": [0, 1], "unseen": ["2", 3]}


def test_each_task_of_an_arm_costs_its_own_head_and_the_whole_encoder() -> None:
    arms = composed()["arms"]
    seconds = {"pretrain-simclr": 10.0, "pretrain-deacl": 100.0}
    seconds |= {"probe-deacl-a": 1.0, "probe-deacl-b": 2.0, "evaluate-deacl-b": 4.0}
    entries = [Entry("deacl", "a"), Entry("deacl", "b")]
    found = costs(arms, entries, seconds, None)["arms"]
    assert found == {"deacl-a": {"seconds": 111.0}, "deacl-b": {"seconds": 116.0}}


def test_a_method_around_others_names_them_all() -> None:
    objective = compose(
        "pretrain",
        "objective=adversarial",
        "objective/base=tarrl",
        "objective/base@objective.base.base=moco",
    )["objective"]
    assert method_name(objective) == "Adversarial(TARRL(MoCo))"
    assert method_name(objective["base"]["base"]) == "MoCo"
