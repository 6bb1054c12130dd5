"""Attacks: threat models, what is raised, and the methods that raise it."""

from rrl_dist.attacks.apgd import APGD
from rrl_dist.attacks.ascent import ascend
from rrl_dist.attacks.balls import L2, Ball, Linf
from rrl_dist.attacks.feature import FeatureAttack
from rrl_dist.attacks.pgd import PGD
from rrl_dist.attacks.result import Attack, Attacked
from rrl_dist.attacks.search import Search

__all__ = [
    "APGD",
    "L2",
    "PGD",
    "Attack",
    "Attacked",
    "Ball",
    "FeatureAttack",
    "Linf",
    "Search",
    "ascend",
]
