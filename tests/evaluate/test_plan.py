from collections.abc import Mapping
from typing import Any

import pytest
import torch

from rrl_dist.attacks.apgd import APGD
from rrl_dist.attacks.balls import L2
from rrl_dist.attacks.projected_gradient import PGD
from rrl_dist.core.errors import UserError
from rrl_dist.evaluate.plan import build_suite
from tests.training.stages import composed


def test_the_projects_suite() -> None:
    config = composed()
    suite = build_suite(config["suite"], config["ball"], seed=3)
    assert suite.full == ("clean", "pgd20-linf@0.05", "apgd-ce-linf@0.05")
    assert [eps for eps, _ in suite.curve] == pytest.approx(
        [0.0, 0.0125, 0.025, 0.0375, 0.05, 0.075]
    )
    names = [name for _, name in suite.curve]
    assert names[0] == "clean"
    # At the full radius the curve needs no attack of its own.
    assert names[4] == "pgd20-linf@0.05"
    assert set(suite.attacks) == {*suite.full, *names}
    assert suite.shown == "pgd20-linf@0.05"
    assert suite.attacks["clean"] is None
    kinds = {name: type(attack) for name, attack in suite.attacks.items()}
    assert kinds["pgd20-linf@0.05"] is PGD
    assert kinds["apgd-ce-linf@0.05"] is APGD
    for eps, name in suite.curve[1:]:
        attack = suite.attacks[name]
        assert attack is not None
        assert attack.ball.eps == pytest.approx(eps)
        assert (attack.seed, attack.name) == (3, "pgd20")


def test_names_tell_radii_apart() -> None:
    config = composed("suite.curve.relative_eps=[0.5,0.51,0.501,1.0,1.5]")
    suite = build_suite(config["suite"], config["ball"], seed=0)
    names = [name for _, name in suite.curve]
    assert len(set(names)) == 6
    for eps, name in suite.curve[1:]:
        attack = suite.attacks[name]
        assert attack is not None
        assert attack.ball.eps == eps


def test_no_component_takes_the_place_of_another() -> None:
    """The same attack with more restarts goes by the same name."""
    config = composed(
        "+suite.attacks.strong={_target_: "
        "rrl_dist.attacks.projected_gradient.PGD, steps: 20, "
        "relative_step: 0.25, restarts: 5, random_start: true}"
    )
    with pytest.raises(UserError, match=r"suite\.attacks\.strong .*pgd20-linf@0\.05"):
        build_suite(config["suite"], config["ball"], seed=0)


def test_a_curve_of_an_attack_that_is_not_there_is_refused() -> None:
    config = composed("suite.curve.attack=pgd40")
    with pytest.raises(UserError, match=r"suite\.curve\.attack=pgd40"):
        build_suite(config["suite"], config["ball"], seed=0)


def test_the_suite_for_representations() -> None:
    config = composed("suite=representation")
    suite = build_suite(config["suite"], config["ball"], seed=3)
    assert suite.full == (
        "clean",
        "pgd20-linf@0.05",
        "apgd-ce-linf@0.05",
        "apgd-dlr-linf@0.05",
        "feature20-linf@0.05",
    )
    radii = [0.0125, 0.025, 0.0375, 0.05, 0.075]
    assert [eps for eps, _ in suite.levels] == pytest.approx(radii)
    for eps, names in suite.levels:
        wanted = ["pgd20", "feature20"]
        wanted += ["apgd-ce", "apgd-dlr"] if eps == 0.05 else []
        assert sorted(names) == sorted(f"{name}-linf@{eps:.4g}" for name in wanted)
        for name in names:
            attack = suite.attacks[name]
            assert attack is not None
            assert attack.ball.eps == eps
    # The curve that is drawn is of one attack.
    assert [name.partition("-")[0] for _, name in suite.curve] == [
        "clean",
        *["pgd20"] * 5,
    ]
    assert suite.search == "search100-l2@4"
    search = suite.attacks[suite.search]
    assert search is not None
    assert (search.ball, search.seed) == (L2(4.0), 3)
    levels = [name for _, names in suite.levels for name in names]
    assert set(suite.attacks) == {"clean", *levels, suite.search}


def test_a_search_that_may_go_nowhere_is_refused() -> None:
    config = composed("suite=representation", "suite.search.ball.eps=0")
    with pytest.raises(UserError, match=r"suite\.search\.ball\.eps=0"):
        build_suite(config["suite"], config["ball"], seed=0)


def test_every_attack_of_a_curve_must_be_there() -> None:
    config = composed("suite.curve.also=[feature20]")
    with pytest.raises(UserError, match=r"suite\.curve\.also=feature20 is none of"):
        build_suite(config["suite"], config["ball"], seed=0)


def test_a_curve_and_a_search_need_not_be_spoken_of() -> None:
    config = composed()
    suite = {key: config["suite"][key] for key in ("attacks", "micro_batch")}
    curve = {"attack": "pgd20", "relative_eps": [0.5]}
    found = build_suite({**suite, "curve": curve}, config["ball"], seed=0)
    assert found.search is None
    assert len(found.curve) == 3


def test_a_suite_without_a_curve() -> None:
    config = composed("suite.curve=null")
    suite = build_suite(config["suite"], config["ball"], seed=0)
    assert suite.curve == ()
    assert suite.levels == ((0.05, suite.full[1:]),)
    assert set(suite.attacks) == set(suite.full)


def test_a_curve_has_its_ends_though_not_asked_for() -> None:
    config = composed("suite.curve.relative_eps=[0.5]")
    suite = build_suite(config["suite"], config["ball"], seed=0)
    assert [eps for eps, _ in suite.curve] == pytest.approx([0.0, 0.025, 0.05])


def test_a_suite_without_attacks_shows_clean_images() -> None:
    config = composed()
    nothing = {"attacks": {}, "micro_batch": 8, "curve": None}
    suite = build_suite(nothing, config["ball"], seed=0)
    assert (suite.full, suite.shown) == (("clean",), "clean")


def test_attacks_call_the_model_as_their_device_likes_it() -> None:
    config = composed("suite.micro_batch=null")

    def sizes(suite: Mapping[str, Any], device: str | None) -> set[int]:
        where = None if device is None else torch.device(device)
        found = build_suite(suite, config["ball"], seed=0, device=where)
        return {a.micro_batch for a in found.attacks.values() if a is not None}

    assert sizes(config["suite"], None) == sizes(config["suite"], "cpu")
    assert sizes(config["suite"], "cpu") != sizes(config["suite"], "cuda")
    asked = {**config["suite"], "micro_batch": 7}
    assert sizes(asked, "cpu") == sizes(asked, "cuda") == {7}
