"""Attacks: threat models, what is raised, and the methods that raise it."""

from rrl_dist.attacks.apgd import APGD
from rrl_dist.attacks.ascent import ascend
from rrl_dist.attacks.balls import L2, Ball, Linf
from rrl_dist.attacks.calls import Details, Distances, autoattack, pgd, tangent
from rrl_dist.attacks.fab import FAB
from rrl_dist.attacks.feature import FeatureAttack
from rrl_dist.attacks.l1 import L1
from rrl_dist.attacks.momentum import MIFGSM
from rrl_dist.attacks.projected_gradient import PGD
from rrl_dist.attacks.result import Attack, Attacked
from rrl_dist.attacks.search import Search
from rrl_dist.attacks.square import Square
from rrl_dist.attacks.tangent_attack import TangentAttack
from rrl_dist.attacks.transfer import Transfer, TransferMatrix, transfer_matrix
from rrl_dist.attacks.versions import AutoAttack

__all__ = [
    "APGD",
    "FAB",
    "L1",
    "L2",
    "MIFGSM",
    "PGD",
    "Attack",
    "Attacked",
    "AutoAttack",
    "Ball",
    "Details",
    "Distances",
    "FeatureAttack",
    "Linf",
    "Search",
    "Square",
    "TangentAttack",
    "Transfer",
    "TransferMatrix",
    "ascend",
    "autoattack",
    "pgd",
    "tangent",
    "transfer_matrix",
]
