"""Every ball, attack and suite of configs/ builds, and what it builds works."""

import torch
from torch import nn

from rrl_dist.attacks import FAB, Attack, Ball, FeatureAttack, TangentAttack
from rrl_dist.attacks.foolbox_attacks import FoolboxAttack
from rrl_dist.attacks.margins import cross_entropy
from rrl_dist.evaluate.plan import build_suite
from rrl_dist.evaluate.vulnerability import vulnerability
from rrl_dist.models.encoder import Classifier
from rrl_dist.training.build import build
from tests.composing import chosen, every, random_images, tiny_encoder

# They minimize L2 distances, and make all of their queries.
BY_DECISIONS = ("tangent", "hopskipjump", "boundary")


@every("ball")
def test_ball(name: str) -> None:
    ball: Ball = build(chosen("ball", name)["ball"])
    x = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    start = ball.start(x, seed=0, key=("test",), index=torch.arange(4))
    distance = ball.distance(start, x)
    assert bool((distance > 0).all())
    assert bool((distance <= ball.eps * (1 + 1e-6)).all())


@every("attack")
def test_attack(name: str) -> None:
    decisions = name in BY_DECISIONS
    # Few queries do not lead near.
    ball = ("ball=l2_05", "ball.eps=3") if decisions else ()
    config = chosen("attack", name, *ball)["probe"]["attack"]
    few = {"queries": 60} if decisions else {}
    attack: Attack = build({**config, **few, "micro_batch": 4}, seed=0)
    x = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    model = Classifier(nn.Flatten(), nn.Linear(48, 2))
    nn.init.normal_(model.head.weight, generator=torch.Generator().manual_seed(1))
    y = model(x).argmax(1)
    x_adv = attack(model, x, y)

    def raised(images: torch.Tensor) -> torch.Tensor:
        if isinstance(attack, FeatureAttack):
            return (model.encoder(images) - model.encoder(x)).norm(dim=1)
        return cross_entropy(model(images), y)

    higher = raised(x_adv) > raised(x)
    # What these cannot break they give back.
    if isinstance(attack, FAB | TangentAttack | FoolboxAttack):
        broken = model(x_adv).argmax(1) != y
        assert bool(broken.any())
        assert torch.equal(higher, broken)
        assert torch.equal(x_adv[~broken], x[~broken])
    else:
        assert bool(higher.all())
    assert bool((attack.ball.distance(x_adv, x) <= attack.ball.eps * (1 + 1e-6)).all())


@every("suite")
def test_suite(name: str) -> None:
    config = chosen("suite", name)
    suite = build_suite(config["suite"], config["ball"], seed=0)
    assert suite.full[0] == "clean"
    assert len(suite.full) > 1 or suite.corruptions or suite.search
    curve = [component for _, component in suite.curve]
    levels = [component for _, names in suite.levels for component in names]
    searches = {suite.search} - {None}
    known = {*suite.full, *curve, *levels, *searches, *suite.corruptions, suite.shown}
    assert known == set(suite.attacks)
    assert suite.curve == tuple(sorted(suite.curve))


@every("corruptions")
def test_corruptions(name: str) -> None:
    config = chosen("corruptions", name, "suite=corruptions")
    suite = build_suite(config["suite"], config["ball"], seed=0)
    asked = config["suite"]["corruptions"]
    count = len(asked["kinds"]) * len(asked["severities"])
    assert len(suite.corruptions) == count > 0


@every("vulnerability")
def test_vulnerability(name: str) -> None:
    few = ("suite=vulnerability", "suite.vulnerability.steps=1")
    config = chosen("vulnerability", name, *few, "suite.vulnerability.batch_size=8")
    suite = build_suite(config["suite"], config["ball"], seed=0)
    assert suite.estimation is not None
    found = vulnerability(
        tiny_encoder(),
        random_images(16, 8),
        random_images(16, 8),
        estimation=suite.estimation,
        ball=build(config["ball"]),
        seed=0,
        device=torch.device("cpu"),
    )
    assert found["batches"] == 2
    assert found["estimator"] == config["suite"]["vulnerability"]["estimator"]
