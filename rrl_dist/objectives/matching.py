"""How far features are apart where they are compared in more than one space."""

from collections.abc import Callable

import torch
from torch import Tensor

from rrl_dist.objectives.distances import Distance, feature_scale


class Matching:
    """A distance of features: the mean over the spaces in which they are compared.

    Args:
        distance: of each space, see `distances`.
        project: features [N, D] -> [N, E], a second space beside the features
            themselves; None for no other.
    """

    def __init__(
        self, distance: Distance, project: Callable[[Tensor], Tensor] | None
    ) -> None:
        self.distance, self.project = distance, project

    def away_from(self, h: Tensor) -> Callable[[Tensor], Tensor]:
        """A function of moved features, [N, D] -> their distance from h, [N].

        Scales are those of h, over the global batch. Gradients flow into h too, if it
        has a graph.
        """
        anchors = self._spaces(h)
        scales = [feature_scale(anchor) for anchor in anchors]

        def distance(moved: Tensor) -> Tensor:
            parts = zip(self._spaces(moved), anchors, scales, strict=True)
            return torch.stack([self.distance(*part) for part in parts]).mean(0)

        return distance

    def _spaces(self, h: Tensor) -> list[Tensor]:
        return [h] if self.project is None else [h, self.project(h)]
