"""Batch norms of their own for images of another kind, such as attacked ones.

Xie et al., Adversarial Examples Improve Image Recognition, CVPR 2020, arXiv:1911.09665:
one network, whose batch norms have one set of weights and statistics for each kind.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from rrl_dist.core.errors import UserError


class Branch(nn.Module):
    """A second set of a network's batch norms, used in place of its own `within` it.

    The network keeps its own set, its names and its state dict: what is saved of it is
    an ordinary network, without this branch. Owned by the network's owner, and not by
    the network, the branch is trained, wrapped and checkpointed with that owner.

    Args:
        network: whose batch norms are copied, with their values and modes.

    Raises:
        UserError: it has none.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        found = {
            name: deepcopy(module)
            for name, module in network.named_modules()
            if isinstance(module, _BatchNorm)
        }
        if not found:
            raise UserError(
                "two sets of batch norms are asked for, and the model has no batch "
                "norm; set objective.batch_norm=shared"
            )
        self._names = list(found)
        self.norms = nn.ModuleList(found.values())

    @contextmanager
    def within(self, network: nn.Module) -> Iterator[None]:
        """The network that was copied from uses these batch norms inside."""
        own = [network.get_submodule(name) for name in self._names]
        for module, norm in zip(own, self.norms, strict=True):
            # Past `nn.Module.__setattr__`, which would make it a child. A call, with
            # the hooks by which DeepSpeed gathers weights.
            module.__dict__["forward"] = norm
        try:
            yield
        finally:
            for module in own:
                del module.__dict__["forward"]
