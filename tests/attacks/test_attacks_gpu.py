"""AutoAttack on a GPU, next to the same on the CPU."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rrl_dist.attacks import L1, L2, Ball, Linf
from rrl_dist.attacks.margins import misclassified
from rrl_dist.attacks.versions import AutoAttack

Data = tuple[Tensor, Tensor]
BALLS = [Linf(0.1), L2(0.5), L1(1.0)]


def short(ball: Ball) -> AutoAttack:
    """The standard version with few steps."""
    suite = AutoAttack(version="standard", ball=ball, seed=0, micro_batch=32)
    made: tuple[Any, ...] = suite.attacks
    suite.attacks = tuple(
        replace(
            attack, **({"queries": 60} if attack.name == "square" else {"steps": 8})
        )
        for attack in made
    )
    return suite


def on(device: str, ball: Ball, model: nn.Module, data: Data) -> Tensor:
    """[N, 1, 8, 8] on the CPU, as attacked on that device."""
    columns = (column.to(device) for column in data)
    x_adv = short(ball)(model.to(device), *columns)
    assert x_adv.device.type == device
    model.cpu()
    return x_adv.cpu()


@pytest.mark.gpu
@pytest.mark.parametrize("ball", BALLS, ids=Ball.label)
def test_bfloat16_breaks_what_float32_does_up_to_borders(
    ball: Ball, model: nn.Module, unseen: Data
) -> None:
    x, y = (column[:64].cuda() for column in unseen)
    model.cuda()
    suites = (short(ball).in_precision(name) for name in ("fp32", "bf16"))
    with torch.backends.cudnn.flags(allow_tf32=False):
        images = [suite(model, x, y) for suite in suites]
        with torch.no_grad():
            wrong = [misclassified(model(x_adv), y) for x_adv in images]
    model.cpu()
    assert all((ball.distance(i, x) <= ball.eps * (1 + 1e-6)).all() for i in images)
    assert (wrong[0] != wrong[1]).sum() <= 2


@pytest.mark.gpu
@pytest.mark.parametrize("ball", BALLS, ids=Ball.label)
def test_on_a_gpu_the_same_images_are_broken_up_to_borders(
    ball: Ball, model: nn.Module, unseen: Data
) -> None:
    x, y = (column[:64] for column in unseen)
    # Else convolutions round to ten bits there.
    with torch.backends.cudnn.flags(allow_tf32=False):
        images = {device: on(device, ball, model, (x, y)) for device in ("cpu", "cuda")}
    wrong = {}
    for device, x_adv in images.items():
        assert (ball.distance(x_adv, x) <= ball.eps * (1 + 1e-6)).all()
        assert 0 <= x_adv.min() <= x_adv.max() <= 1
        with torch.no_grad():
            wrong[device] = misclassified(model(x_adv), y)
    assert 5 < int(wrong["cpu"].sum()) < 50
    # On the CPU itself none differs where all weights are changed by a millionth.
    assert (wrong["cpu"] != wrong["cuda"]).sum() <= 1
