"""Passes in bfloat16: what is told of an image is the model's own answer in float32."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rrl_dist.attacks import APGD, FAB, L1, L2, Attack, Ball, Linf, Square, autoattack
from rrl_dist.attacks.cascade import Cascade
from rrl_dist.attacks.classifier import Classifier, borrowed
from rrl_dist.attacks.margins import logit_margin, misclassified
from rrl_dist.attacks.precision import in_precision
from rrl_dist.attacks.trial_attack import _cleared
from rrl_dist.attacks.trials import Outcome, Samples
from rrl_dist.attacks.twin import InBfloat16
from rrl_dist.core.errors import UserError
from rrl_dist.evaluate.identity import evaluation_identity
from rrl_dist.evaluate.plan import build_suite
from rrl_dist.evaluate.suites import suite_config

Data = tuple[Tensor, Tensor]
SIZE = 32
OWN: dict[str, Any] = {"seed": 0, "micro_batch": SIZE, "precision": "bf16"}


def apgd_ce(ball: Ball) -> APGD:
    return APGD(ball=ball, loss="ce", steps=6, restarts=2, targets=1, **OWN)


def apgd_t(ball: Ball) -> APGD:
    few = {"steps": 6, "restarts": 1, "targets": 2}
    return APGD(ball=ball, loss="targeted-dlr", **few, **OWN)


def fab_t(ball: Ball) -> FAB:
    few = {"steps": 6, "restarts": 1, "targets": 2}
    return FAB(ball=ball, alpha_max=0.1, eta=1.05, beta=0.9, **few, **OWN)


def square(ball: Ball) -> Square:
    few = {"queries": 25, "schedule": 25, "restarts": 1}
    return Square(ball=ball, p_init=0.8, **few, **OWN)


Make = Callable[[Ball], Attack]
every = pytest.mark.parametrize("make", [apgd_ce, apgd_t, fab_t, square])
BALLS = [Linf(0.1), L2(0.5), L1(1.0)]


def wrong(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return misclassified(model(x), y)


@every
@pytest.mark.parametrize("ball", BALLS, ids=Ball.label)
def test_images_stay_in_the_ball_and_about_as_many_are_broken(
    make: Make, ball: Ball, model: nn.Module, unseen: Data
) -> None:
    x, y = (column[:32] for column in unseen)
    attack: Any = make(ball)
    rough = attack.run(model, x, y).x_adv
    assert (ball.distance(rough, x) <= ball.eps * (1 + 1e-6)).all()
    assert 0 <= rough.min() <= rough.max() <= 1
    fine = replace(attack, precision="fp32").run(model, x, y).x_adv
    counts = [int(wrong(model, images, y).sum()) for images in (rough, fine)]
    print(attack.name, ball.label(), *counts)
    assert abs(counts[0] - counts[1]) <= 2


@every
def test_an_outcome_does_not_depend_on_batch_or_order(
    make: Make, model: nn.Module, unseen: Data
) -> None:
    x, y = (column[:40] for column in unseen)
    index = torch.arange(len(x))
    whole = make(Linf(0.1)).run(model, x, y, index)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    for rows in order.split(27):
        part = make(Linf(0.1)).run(model, x[rows], y[rows], index[rows])
        assert torch.equal(part.x_adv, whole.x_adv[rows])
        assert torch.equal(part.queries, whole.queries[rows])


def test_the_copy_is_one_in_bfloat16(model: nn.Module, unseen: Data) -> None:
    with borrowed(model, SIZE) as classifier:
        rough = classifier.sooner(unseen[0], "bf16")
        assert rough.is_rough
        assert isinstance(rough._model, InBfloat16)
        assert not rough.original.is_rough
        x = unseen[0][:SIZE]
        found, expected = rough(x), classifier(x)
        assert not torch.equal(found, expected)
        torch.testing.assert_close(found, expected, rtol=0.05, atol=0.5)


def bordering(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Images [N, ...] on the way from one to another of another class, as near to the
    border as float32 can tell, half of them on either side; and the first one's
    class."""
    with torch.no_grad():
        ends = model(x).argmax(1)
        a, b = x[:-1][ends[:-1] != ends[1:]], x[1:][ends[:-1] != ends[1:]]
        y = model(a).argmax(1)
        low, high = torch.zeros(len(a)), torch.ones(len(a))
        for _ in range(12):
            middle = (low + high) / 2
            beyond = wrong(model, a + middle[:, None, None, None] * (b - a), y)
            low = torch.where(beyond, low, middle)
            high = torch.where(beyond, middle, high)
        share = torch.where(torch.arange(len(a)) % 2 == 0, low, high)
        return a + share[:, None, None, None] * (b - a), y


def test_a_claim_of_bfloat16_is_not_believed(model: nn.Module, unseen: Data) -> None:
    x, y = bordering(model, unseen[0])
    truth = wrong(model, x, y)
    with borrowed(model, SIZE) as classifier:
        rough = classifier.sooner(x, "bf16")
        count = len(x) // SIZE * SIZE
        x, y, truth = x[:count], y[:count], truth[:count]
        logits = rough(x)
        assert (misclassified(logits, y) & ~truth).any(), "nothing to be denied"
        assert (~misclassified(logits, y) & truth).any(), "nothing that is missed"
        assert not (rough.wrong(x, logits, y) & ~truth).any()
        # Where the answer may be the outcome what was missed is found, too.
        near = torch.ones_like(truth)
        assert torch.equal(rough.wrong(x, logits, y, near), truth)
        assert rough.doubted(logits, y).all()


def test_what_is_in_doubt_is_tried_again_in_float32(
    model: nn.Module, unseen: Data
) -> None:
    x, y = bordering(model, unseen[0])
    right = ~wrong(model, x, y)
    x, y = x[right], y[right]
    clear = unseen[0][:20]
    with torch.no_grad():
        answers = model(clear)
        sure = logit_margin(answers, answers.argmax(1)) < -5
    assert sure.any()
    columns = torch.cat([x, clear[sure]]), torch.cat([y, answers.argmax(1)[sure]])
    asked: list[Tensor] = []

    def run(classifier: Classifier, samples: Samples) -> Outcome:
        assert not classifier.is_rough
        asked.append(samples.ids)
        return Outcome(samples.x + 1, samples.y >= 0, samples.y + 7)

    with borrowed(model, SIZE) as classifier:
        samples = Samples(*columns, torch.arange(len(columns[0])), columns[0])
        nothing = torch.zeros_like(samples.y)
        found = Outcome(samples.x, nothing.bool(), nothing)
        rough = classifier.sooner(samples.x, "bf16")
        cleared = _cleared(found, samples, rough, run)
    assert torch.equal(asked[0], torch.arange(len(x)))
    assert torch.equal(cleared.x[: len(x)], x + 1)
    assert torch.equal(cleared.x[len(x) :], clear[sure])
    assert torch.equal(cleared.wrong, samples.ids < len(x))
    assert torch.equal(cleared.queries[: len(x)], y + 7)


class Offset(nn.Module):
    """Its logits have so much in common that bfloat16 cannot tell them apart."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.head = body, nn.Linear(10, 10)
        with torch.no_grad():
            self.head.weight.copy_(torch.eye(10))
            self.head.bias.fill_(1000.0)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x))
        return logits


def test_where_bfloat16_is_too_rough_it_is_not_used(
    model: nn.Module, unseen: Data
) -> None:
    with borrowed(Offset(model), SIZE) as classifier:
        assert not classifier.sooner(unseen[0], "bf16").is_rough


def test_attacks_in_turn_say_what_the_model_says(
    model: nn.Module, unseen: Data
) -> None:
    x, y = (column[:48] for column in unseen)
    ball = Linf(0.1)
    makes = {make.__name__: make for make in (apgd_ce, apgd_t, fab_t, square)}
    attacks = {
        name: lambda ball, seed, micro_batch, make=make: make(ball)
        for name, make in makes.items()
    }
    suite = Cascade(label="all", attacks=attacks, ball=ball, seed=0, micro_batch=SIZE)
    found, stages = suite.stages(model, x, y)
    broken = torch.stack([stage.wrong for stage in stages]).any(0)
    assert torch.equal(broken, wrong(model, found.x_adv, y))
    assert 5 < int(broken.sum()) < 43


def test_one_setting_is_that_of_all_attacks(model: nn.Module, unseen: Data) -> None:
    config = {**suite_config("autoattack"), "precision": "bf16"}
    ball = {"_target_": "rrl_dist.attacks.balls.Linf", "eps": 0.1}
    (attack,) = (a for a in build_suite(config, ball, seed=0).attacks.values() if a)
    assert isinstance(attack, Cascade)
    parts: Any = attack.attacks
    assert {part.precision for part in parts} == {"bf16"}
    with pytest.raises(UserError, match=r"precision=fp8; choose fp32\|bf16"):
        autoattack(model, *unseen, ball=Linf(0.1), precision="fp8")
    with pytest.raises(UserError, match="choose fp32"):
        in_precision(attack, "half")
    with pytest.raises(UserError, match="choose fp32"):
        replace(square(Linf(0.1)), precision="double")


def test_another_precision_is_another_evaluation() -> None:
    suite = suite_config("quick")
    assert suite["precision"] == "fp32"
    config = {"evaluate": {"split": "test", "limit": None}, "ball": {}, "seed": 0}
    first, second = (
        evaluation_identity(
            {**config, "suite": {**suite, "precision": precision}},
            weights="a",
            images={"test": "b"},
            surrogates={},
        )
        for precision in ("fp32", "bf16")
    )
    assert first != second
