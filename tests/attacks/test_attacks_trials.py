"""Packing of trials into micro-batches: what a trial finds is its own."""

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from rrl_dist.attacks import APGD, L1, L2, Ball, Linf, Square
from rrl_dist.attacks.classifier import Classifier
from rrl_dist.attacks.trial_attack import run_trials
from rrl_dist.attacks.trials import Outcome, Packing, Samples

SIZE = 5


class Walk(NamedTuple):
    """A trial that ends, right or wrong, after a number of steps."""

    best: Tensor
    score: Tensor
    wrong: Tensor
    done: Tensor
    queries: Tensor
    left: Tensor
    succeeds: Tensor


class Scripted:
    """Trial n of sample i takes `length[i][n]` steps and then succeeds or not.

    Its image tells who made it.
    """

    def __init__(self, length: list[list[int]], success: list[list[bool]]) -> None:
        self.length, self.success = torch.tensor(length), torch.tensor(success)
        self.begun: list[tuple[int, int]] = []
        self.widths: set[int] = set()

    def begin(self, samples: Samples, number: Tensor) -> Walk:
        self.widths.add(len(number))
        self.begun += zip(samples.ids.tolist(), number.tolist(), strict=True)
        no = torch.zeros(len(number), dtype=torch.bool)
        return Walk(
            best=(100.0 * samples.ids + number)[:, None],
            score=torch.sin(samples.ids * 3.0 + number),
            wrong=no,
            done=no,
            queries=torch.zeros_like(number),
            left=self.length[samples.ids, number],
            succeeds=self.success[samples.ids, number],
        )

    def step(self, classifier: Classifier, state: Walk) -> Walk:
        left = state.left - 1
        return state._replace(
            left=left,
            queries=state.queries + (state.left > 0),
            wrong=(left <= 0) & state.succeeds,
            done=left <= 0,
        )


def outcome(script: Scripted, order: list[int], packing: Packing) -> Outcome:
    ids = torch.tensor(order)
    samples = Samples(ids[:, None] * 1.0, ids * 0, ids, torch.zeros(len(ids), 3))
    classifier = Classifier(nn.Identity())
    trials = script.length.shape[1]
    return run_trials(script, classifier, samples, trials=trials, packing=packing)


@st.composite
def scripts(draw: st.DrawFn) -> tuple[list[list[int]], list[list[bool]]]:
    samples, trials = draw(st.integers(1, 12)), draw(st.integers(1, 4))
    table = st.lists(st.integers(1, 6), min_size=trials, max_size=trials)
    wins = st.lists(st.booleans(), min_size=trials, max_size=trials)
    return (
        draw(st.lists(table, min_size=samples, max_size=samples)),
        draw(st.lists(wins, min_size=samples, max_size=samples)),
    )


@settings(deadline=None, max_examples=60)
@given(scripts(), st.sampled_from([1, 2, 3, 5, 7, 8, 16]), st.booleans(), st.randoms())
def test_the_first_successful_trial_breaks_a_sample_however_rows_are_packed(
    script: tuple[list[list[int]], list[list[bool]]], size: int, turn: bool, random
) -> None:
    length, success = script
    order = list(range(len(length)))
    random.shuffle(order)
    scripted = Scripted(length, success)
    found = outcome(scripted, order, Packing(size, in_turn=turn))
    assert all(width % size == 0 for width in scripted.widths)
    assert size > 7 or scripted.widths == {size}
    for place, i in enumerate(order):
        wins = [n for n, won in enumerate(success[i]) if won]
        scores = torch.sin(i * 3.0 + torch.arange(len(length[i])))
        author = wins[0] if wins else int(scores.argmax())
        counted = length[i][: wins[0] + 1] if wins else length[i]
        assert found.wrong[place] == bool(wins)
        assert found.x[place, 0] == 100 * i + author
        assert found.queries[place] == sum(counted)


def test_rows_of_broken_samples_are_taken_by_others() -> None:
    """Four samples of two trials in two rows: 0 and 1 break at once, 2 and 3 never."""
    length, success = [[1, 9], [1, 9], [9, 9], [9, 9]], [[True] * 2] * 2
    script = Scripted(length, success + [[False] * 2] * 2)
    outcome(script, [0, 1, 2, 3], Packing(2))
    begun = list(dict.fromkeys(script.begun))
    assert begun == [(0, 0), (1, 0), (2, 0), (3, 0), (2, 1), (3, 1)]


class Watched(Scripted):
    """Notes how many rows each step has."""

    def __init__(self, length: list[list[int]], success: list[list[bool]]) -> None:
        super().__init__(length, success)
        self.rows: list[int] = []

    def step(self, classifier: Classifier, state: Walk) -> Walk:
        self.rows.append(len(state.done))
        return super().step(classifier, state)


def test_rows_that_nobody_needs_are_given_up_by_whole_micro_batches() -> None:
    """Of 20 samples 17 end at once, and 3 go on alone."""
    long = {9, 18, 19}
    length = [[6 if i in long else 1] for i in range(20)]
    script = Watched(length, [[False]] * 20)
    found = outcome(script, list(range(20)), Packing(8))
    assert script.rows == [24] + [8] * 5
    assert found.x[:, 0].tolist() == [100.0 * i for i in range(20)]
    assert found.queries.tolist() == [steps for (steps,) in length]


def test_targets_of_a_few_samples_share_a_micro_batch() -> None:
    script = Scripted([[4, 4, 4]], [[False] * 3])
    outcome(script, [0], Packing(3))
    assert len(script.begun) == 3, "one micro-batch of three targets"
    one_by_one = Scripted([[4, 4, 4]], [[False] * 3])
    outcome(one_by_one, [0], Packing(3, in_turn=True))
    assert len(one_by_one.begun) == 9, "three micro-batches of one"


@pytest.mark.parametrize("loss", ["ce", "dlr", "targeted-dlr"])
@pytest.mark.parametrize("batch", [1, 7, 64, 256])
def test_apgd_gives_the_same_bits_for_any_batch_and_order(
    loss: str, batch: int, trained: nn.Module, unseen: tuple[Tensor, Tensor]
) -> None:
    x, y = (column[:96] for column in unseen)
    attack = APGD(
        ball=Linf(0.1),
        loss=loss,
        steps=6,
        restarts=2,
        targets=3 if loss == "targeted-dlr" else 1,
        seed=1,
        micro_batch=16,
    )
    whole = attack.run(trained, x, y)
    order = torch.randperm(96, generator=torch.Generator().manual_seed(batch))
    parts = [attack.run(trained, x[i], y[i], i) for i in order.split(batch)]
    assert torch.equal(torch.cat([p.x_adv for p in parts]), whole.x_adv[order])
    assert torch.equal(torch.cat([p.queries for p in parts]), whole.queries[order])


def test_a_schedule_in_turn_breaks_the_same_samples(
    trained: nn.Module, unseen: tuple[Tensor, Tensor]
) -> None:
    x, y = (column[:96] for column in unseen)
    settings = {"steps": 6, "restarts": 1, "targets": 4, "seed": 1, "micro_batch": 32}
    packed, in_turn = (
        APGD(ball=Linf(0.1), loss="targeted-dlr", in_turn=turn, **settings).run(
            trained, x, y
        )
        for turn in (False, True)
    )
    wrong = [trained(a.x_adv).argmax(1) != y for a in (packed, in_turn)]
    assert torch.equal(*wrong)
    assert 10 < int(wrong[0].sum()) < 90
    broken = wrong[0] & (packed.queries > 1)
    assert (in_turn.queries >= packed.queries).all()
    assert (in_turn.queries > packed.queries)[broken].any()


@pytest.mark.parametrize("classes", [2, 3, 4, 5])
@pytest.mark.parametrize("loss", ["dlr", "targeted-dlr"])
def test_losses_of_logits_work_with_few_classes(loss: str, classes: int) -> None:
    """A linear model, whose worst image in the ball is known for each target."""
    generator = torch.Generator().manual_seed(classes)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, classes))
    nn.init.normal_(model[1].weight, generator=generator)
    with torch.no_grad():  # classes are equal in the middle of the box
        model[1].bias.copy_(-0.5 * model[1].weight.sum(1))
    x = 0.3 + 0.4 * torch.rand(40, 1, 4, 4, generator=generator)
    y = model(x).argmax(1)
    weight, logits = model[1].weight, model(x)
    eps = 0.02
    reach = torch.stack(
        [
            logits[:, k]
            - logits.gather(1, y[:, None])[:, 0]
            + eps * (weight[k] - weight[y]).abs().sum(1)
            for k in range(classes)
        ],
        1,
    ).scatter(1, y[:, None], -torch.inf)
    breakable = reach.amax(1) > 0
    targets = classes - 1 if loss == "targeted-dlr" else 1
    settings = {"steps": 20, "restarts": 1, "targets": targets, "micro_batch": 8}
    attack = APGD(ball=Linf(eps), loss=loss, seed=0, **settings)
    wrong = model(attack(model, x, y)).argmax(1) != y
    assert not (wrong & ~breakable).any()
    if loss == "targeted-dlr" or classes == 2:
        clear = reach.amax(1).abs() > 1e-3
        assert torch.equal(wrong[clear], breakable[clear])
    assert 3 < int(wrong.sum()) < 40


@pytest.mark.parametrize("ball", [Linf(0.1), L2(0.4), L1(1.0)], ids=Ball.label)
@pytest.mark.parametrize("count", [1, 3, 11, 16])
def test_free_rows_that_look_ahead_change_nothing_but_the_number_of_calls(
    ball: Ball, count: int, trained: nn.Module, unseen: tuple[Tensor, Tensor]
) -> None:
    """With as many samples as rows there is nobody who could look ahead."""
    right = trained(unseen[0]).argmax(1) == unseen[1]
    x, y = (column[right][:count] for column in unseen)
    settings = {"queries": 150, "schedule": 400, "p_init": 0.8, "restarts": 2}
    attack = Square(ball=ball, **settings, seed=3, micro_batch=16)
    calls: list[int] = []
    index = torch.arange(count) + 7
    hook = trained.register_forward_hook(lambda *_: calls.append(1))
    found = attack.run(trained, x, y, index)
    hook.remove()
    alone = Square(ball=ball, **settings, seed=3, micro_batch=16, in_turn=True)
    expected = alone.run(trained, x, y, index)
    assert torch.equal(found.x_adv, expected.x_adv)
    assert torch.equal(found.queries, expected.queries)
    assert int(found.queries.max()) > 40
    if count <= 3:
        assert len(calls) < int(found.queries.max()) * (0.5 if count == 1 else 0.75)
