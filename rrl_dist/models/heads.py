"""Heads on an encoder's features."""

from typing import cast

from torch import Tensor, nn

from rrl_dist.models.sync_bn import convert_sync_bn


class Projector(nn.Module):
    """MLP with batch norm and ReLU between its layers: [N, D] -> [N, out].

    Args:
        in_features: D.
        hidden: width of the hidden layers.
        out: dimensions of the output.
        layers: number of linear layers, at least 1.
        sync_bn: batch norm over all workers.
    """

    def __init__(
        self, in_features: int, *, hidden: int, out: int, layers: int, sync_bn: bool
    ) -> None:
        super().__init__()
        mlp = nn.Sequential()
        for _ in range(layers - 1):
            # The batch norm has a bias of its own.
            mlp.append(nn.Linear(in_features, hidden, bias=False))
            mlp.append(nn.BatchNorm1d(hidden))
            mlp.append(nn.ReLU(inplace=True))
            in_features = hidden
        mlp.append(nn.Linear(in_features, out))
        self.mlp = convert_sync_bn(mlp) if sync_bn else mlp

    def forward(self, h: Tensor) -> Tensor:
        return cast(Tensor, self.mlp(h))
