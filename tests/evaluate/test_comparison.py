from rrl_dist.evaluate.comparison import compare, costs
from tests.training.stages import composed

NUMBERS = {"schema": 1, "worst": {"value": 0.5}, "components": {}, "curve": []}


def test_arms_stand_side_by_side_in_their_order() -> None:
    config = composed()
    found = compare(config, {"deacl": NUMBERS, "simclr": {**NUMBERS, "curve": [1]}})
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


def test_a_timm_backbone_has_timms_name() -> None:
    config = composed()
    model = {**config["model"], "backbone": {"_target_": "f", "name": "resnet18"}}
    found = compare({**config, "model": model}, {"simclr": NUMBERS})
    assert found["arms"]["simclr"]["backbone"] == "resnet18"


def test_results_depend_on_nothing_but_numbers_and_settings() -> None:
    one = composed()
    other = composed("storage=/elsewhere", "cluster=local", "cluster.workers=3")
    arms = {"simclr": NUMBERS, "deacl": NUMBERS}
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
    found = costs(arms, seconds, "1 x CPU")
    assert found["arms"] == {"simclr": {"seconds": 13.0}, "deacl": {"seconds": 130.0}}
    assert found["stages"]["probe-deacl"] == {"seconds": 20.0}
    assert found["device"] == "1 x CPU"
