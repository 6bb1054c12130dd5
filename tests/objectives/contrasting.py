"""ACL and RoCL around small encoders."""

from functools import partial
from typing import Any

from torch.nn.modules.batchnorm import _BatchNorm

from rrl_dist.attacks.balls import Linf
from rrl_dist.models.encoder import Encoder
from rrl_dist.models.heads import NormedProjector, PlainProjector
from rrl_dist.objectives.acl import ACL
from rrl_dist.objectives.rocl import RoCL

CONTRASTING = ("acl", "rocl")
EPS = 8 / 255
_ATTACK: dict[str, Any] = {
    "temperature": 0.5,
    "ball": Linf(EPS),
    "steps": 3,
    "relative_step": 0.25,
    "seed": 0,
}


def acl(encoder: Encoder, *, sync_bn: bool, **changes: Any) -> ACL:
    """With two sets of batch norms where the encoder has any."""
    projector = partial(NormedProjector, hidden=16, out=8, layers=3, sync_bn=sync_bn)
    normed = any(isinstance(module, _BatchNorm) for module in encoder.modules())
    settings: dict[str, Any] = {
        **_ATTACK,
        "projector": projector,
        "weight": 0.5,
        "batch_norm": "adversarial" if normed else "shared",
        **changes,
    }
    return ACL(encoder=encoder, **settings)


def rocl(encoder: Encoder, **changes: Any) -> RoCL:
    """With a weight at which its second term counts."""
    projector = partial(PlainProjector, hidden=16, out=8)
    settings = {**_ATTACK, "projector": projector, "weight": 0.25, **changes}
    return RoCL(encoder=encoder, **settings)


def contrasting(name: str, encoder: Encoder, *, sync_bn: bool) -> ACL | RoCL:
    """One of `CONTRASTING`."""
    if name == "acl":
        return acl(encoder, sync_bn=sync_bn)
    return rocl(encoder)
