"""The fast adaptive boundary attack by hand and by its authors, for its tests."""

from typing import Any

import pytest
import torch
from pyautoattack.fab_pt import FABAttack_PT
from torch import Tensor, nn

from rrl_dist.attacks import FAB, L1, L2, Ball, Linf

Data = tuple[Tensor, Tensor]
SETTINGS: dict[str, Any] = {
    "steps": 20,
    "restarts": 1,
    "targets": None,
    "alpha_max": 0.1,
    "eta": 1.05,
    "beta": 0.9,
    "seed": 3,
    "micro_batch": 64,
}
NAMES = {"linf": "Linf", "l2": "L2", "l1": "L1"}
DUAL_ORDERS = {"linf": 1.0, "l2": 2.0, "l1": torch.inf}
aims = pytest.mark.parametrize("targets", [None, 9])
BALLS = [Linf(0.1), L2(0.5), L1(2.0)]
every_ball = pytest.mark.parametrize("ball", BALLS, ids=Ball.label)


def fab(ball: Ball, **changes: Any) -> FAB:
    return FAB(ball=ball, **{**SETTINGS, **changes})


def official(model: nn.Module, attack: FAB) -> FABAttack_PT:
    return FABAttack_PT(
        model,
        norm=NAMES[attack.ball.norm],
        n_restarts=attack.restarts,
        n_iter=attack.steps,
        eps=attack.ball.eps,
        targeted=attack.targets is not None,
    )


def wrong(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """At the shape of a micro-batch, as the attack sees it."""
    with torch.no_grad():
        return torch.cat([model(part).argmax(1) for part in x.split(64)]) != y


def linear(classes: int, pixels: int) -> nn.Sequential:
    model = nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes))
    generator = torch.Generator().manual_seed(1)
    nn.init.normal_(model[1].weight, generator=generator)
    nn.init.zeros_(model[1].bias)
    return model


def way(x: Tensor, w: Tensor, value: float, norm: str) -> Tensor:
    """[d] float64, from x to the hyperplane within the box, by bisection over time."""
    side = -torch.sign(torch.tensor(value)) * w.sign()
    room = torch.where(side > 0, 1 - x, torch.where(side < 0, x, 0))
    pace = w.abs() / w.abs().max() if norm == "l2" else torch.ones_like(w)
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        closed = float((w.abs() * torch.minimum(middle * pace, room)).sum())
        low, high = (low, middle) if closed >= abs(value) else (middle, high)
    return side * torch.minimum(high * pace, room)


def literal_fab(
    model: nn.Module, attack: FAB, x: Tensor, y: int, rivals: list[int]
) -> float:
    """One sample [1, ...] from its clean image: the least distance of a wrong one."""
    norm, clean, point, least, near = attack.ball.norm, x.double().flatten(), x, 9.0, x
    for step in range(attack.steps + 1):
        if step == attack.steps:
            point = attack.ball.project(near, x)
        point = point.detach().requires_grad_()
        logits, here = model(point)[0], point.detach().double().flatten()
        planes = []
        for k in rivals:
            gap = logits[k] - logits[y]
            (w,) = torch.autograd.grad(gap, point, retain_graph=True)
            w = w.double().flatten()
            planes.append((abs(gap.item()) / w.norm(DUAL_ORDERS[norm]), w, gap.item()))
        _, w, value = min(planes, key=lambda plane: plane[0])
        d1 = way(here, w, value, norm)
        d2 = way(clean, w, value + float(w @ (clean - here)), norm)
        one, two = (attack.ball.distance(d[None], 0 * d[None]) for d in (d1, d2))
        alpha = (one / (one + two)).clamp_max(0.1)
        moved = (1 - alpha) * (here + 1.05 * d1) + alpha * (clean + 1.05 * d2)
        visited = [point.detach(), moved.clamp(0, 1).float().reshape(x.shape)]
        for image in visited:
            distance = attack.ball.distance(image, x).item()
            if model(image).argmax() != y and distance < least:
                least, near = distance, image
        point = visited[1]
        if model(point).argmax() != y:
            point = x + 0.9 * (point - x)
    return least
