"""Heads on an encoder's features."""

from typing import cast

from torch import Tensor, nn

from rrl_dist.core.errors import UserError
from rrl_dist.models.sync_bn import convert_sync_bn


def _mlp(
    in_features: int, *, hidden: int, out: int, layers: int, bias: bool
) -> nn.Sequential:
    """Linear layers with batch norm and ReLU between them; `bias` is the last's."""
    if layers < 1:
        raise UserError(f"projector.layers={layers}; set at least 1")
    mlp = nn.Sequential()
    for _ in range(layers - 1):
        # The batch norm has a bias of its own.
        mlp.append(nn.Linear(in_features, hidden, bias=False))
        mlp.append(nn.BatchNorm1d(hidden))
        mlp.append(nn.ReLU(inplace=True))
        in_features = hidden
    return mlp.append(nn.Linear(in_features, out, bias=bias))


class Projector(nn.Module):
    """MLP with batch norm and ReLU between its layers: [N, D] -> [N, out].

    Args:
        in_features: D.
        hidden: width of the hidden layers.
        out: dimensions of the output.
        layers: number of linear layers, at least 1.
        sync_bn: batch norm over all workers.

    Raises:
        UserError: there is no layer.
    """

    def __init__(
        self, in_features: int, *, hidden: int, out: int, layers: int, sync_bn: bool
    ) -> None:
        super().__init__()
        mlp = _mlp(in_features, hidden=hidden, out=out, layers=layers, bias=True)
        self.mlp = convert_sync_bn(mlp) if sync_bn else mlp
        self.out = out

    def forward(self, h: Tensor) -> Tensor:
        return cast(Tensor, self.mlp(h))


class NormedProjector(nn.Module):
    """A `Projector` that ends in batch norm without scale and shift, as SimSiam's.

    Args:
        in_features, hidden, out, layers, sync_bn: as for `Projector`.

    Raises:
        UserError: there is no layer.
    """

    def __init__(
        self, in_features: int, *, hidden: int, out: int, layers: int, sync_bn: bool
    ) -> None:
        super().__init__()
        mlp = _mlp(in_features, hidden=hidden, out=out, layers=layers, bias=False)
        mlp.append(nn.BatchNorm1d(out, affine=False))
        self.mlp = convert_sync_bn(mlp) if sync_bn else mlp
        self.out = out

    def forward(self, h: Tensor) -> Tensor:
        return cast(Tensor, self.mlp(h))


class PlainProjector(nn.Module):
    """Two linear layers and a ReLU, without batch norm, as MoCo's: [N, D] -> [N, out].

    Args:
        in_features: D.
        hidden: width of the hidden layer.
        out: dimensions of the output.
    """

    def __init__(self, in_features: int, *, hidden: int, out: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(in_features, hidden), nn.ReLU(), nn.Linear(hidden, out)
        )
        self.out = out

    def forward(self, h: Tensor) -> Tensor:
        return cast(Tensor, self.mlp(h))


def linear_head(in_features: int, num_classes: int) -> nn.Linear:
    """One linear layer: features [N, D] -> logits [N, K]."""
    return nn.Linear(in_features, num_classes)


class MLPHead(nn.Module):
    """Two linear layers, batch norm over all workers and ReLU between them.

    The classifier's MLP of schzhu/learning-adversarially-robust-representations, but
    for its dropout of 0.1.

    Args:
        in_features: D.
        num_classes: K.
        hidden: width between the layers.
    """

    def __init__(self, in_features: int, num_classes: int, *, hidden: int) -> None:
        super().__init__()
        mlp = _mlp(in_features, hidden=hidden, out=num_classes, layers=2, bias=True)
        self.mlp = convert_sync_bn(mlp)

    def forward(self, h: Tensor) -> Tensor:
        """Features [N, D] -> logits [N, K]."""
        return cast(Tensor, self.mlp(h))


class Predictor(nn.Module):
    """From one view's projection to another's: [N, D] -> [N, D], as a `Projector`.

    Args:
        features: D.
        hidden: width of the hidden layer.
        sync_bn: batch norm over all workers.
    """

    def __init__(self, features: int, *, hidden: int, sync_bn: bool) -> None:
        super().__init__()
        mlp = _mlp(features, hidden=hidden, out=features, layers=2, bias=True)
        self.mlp = convert_sync_bn(mlp) if sync_bn else mlp

    def forward(self, z: Tensor) -> Tensor:
        return cast(Tensor, self.mlp(z))
