"""What passes from the data to an objective."""

from dataclasses import dataclass, field, replace

from torch import Tensor


@dataclass(frozen=True)
class Batch:
    """One worker's share of a global batch.

    Attributes:
        images: [N, 3, H, W] float in [0, 1], the stored images without augmentation.
        views: augmented images, each [N, 3, H, W] float in [0, 1]; row i of every view
            shows sample i.
        labels: [N] int64; -1 where the data set has none.
        index: [N] int64, each sample's place in its data set. Randomness and results
            belong to it, not to a worker or a batch.
        step: the optimizer step, counted from 0: part of the key of every draw that
            must differ from step to step.
        progress: share of the run's steps that are done, in [0, 1].
        extras: what `Objective.inner` hands to `forward`, such as attacked images.
    """

    images: Tensor
    views: tuple[Tensor, ...]
    labels: Tensor
    index: Tensor
    step: int = 0
    progress: float = 0.0
    extras: dict[str, Tensor] = field(default_factory=dict)

    def with_extras(self, **extras: Tensor) -> "Batch":
        """A copy that carries `extras` too; this batch stays as it was."""
        return replace(self, extras={**self.extras, **extras})
