from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf
from torch import nn

from rrl_dist.attacks import L2, PGD, Attack, Ball, Linf
from rrl_dist.models.encoder import Classifier

CONFIGS = Path(__file__).parents[2] / "configs"


# They minimize L2 distances, and make all of their queries.
BY_DECISIONS = ("tangent", "hopskipjump", "boundary")


def build(file: Path, ball: Ball, micro_batch: int, **changes: int) -> Attack:
    # Partial: an argument of Hydra's own call would turn the ball into a dictionary.
    attack = instantiate({**OmegaConf.load(file), **changes}, _partial_=True)
    return attack(ball=ball, seed=0, micro_batch=micro_batch)


@pytest.mark.parametrize("file", sorted((CONFIGS / "ball").glob("*.yaml")))
def test_every_ball_builds(file: Path) -> None:
    ball = instantiate(OmegaConf.load(file))
    assert isinstance(ball, Ball)
    # Else it is meant for pixels of 0 to 255. In L1 the changes of all pixels add up.
    assert 0 < ball.eps < (100 if ball.norm == "l1" else 1)


@pytest.mark.parametrize("file", sorted((CONFIGS / "attack").glob("*.yaml")))
def test_every_attack_builds_and_runs(file: Path) -> None:
    few = {"queries": 40} if file.stem in BY_DECISIONS else {}
    ball = L2(0.05) if few else Linf(0.05)
    attack = build(file, ball, 4, **few)
    model = Classifier(nn.Flatten(), nn.Linear(4, 4))  # as targeted losses need
    x = torch.full((3, 1, 2, 2), 0.5)
    attacked = attack.run(model, x, torch.zeros(3, dtype=torch.int64))
    assert attacked.x_adv.shape == x.shape


def test_pgd20_is_that_of_the_paper() -> None:
    ball = instantiate(OmegaConf.load(CONFIGS / "ball" / "linf_8_255.yaml"))
    attack = build(CONFIGS / "attack" / "pgd20.yaml", ball, 64)
    assert isinstance(attack, PGD)
    assert attack.name == "pgd20"
    assert ball.label() == "linf@0.03137"
    assert attack.relative_step * ball.eps == pytest.approx(2 / 255)
