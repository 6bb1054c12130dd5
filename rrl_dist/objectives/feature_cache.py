"""A frozen network's features of images that never change, kept by sample."""

from collections.abc import Callable

import torch
from torch import Tensor


class FeatureCache:
    """Calls a network until it knows every image of a batch, and then no longer.

    Where one image is new the whole batch passes, so that the network is called at one
    shape only: what is kept then depends neither on the companions of an image nor on
    when it was first seen, and a run that goes on with an empty cache is the same run.

    Rows lie in host memory, at the samples' places in the data set. Each worker keeps
    those it has met: up to images x features x 4 bytes, 92 MB for 45,000 images and
    512 features.

    Args:
        compute: images [N, ...] -> features [N, D], without graph.
    """

    def __init__(self, compute: Callable[[Tensor], Tensor]) -> None:
        self.compute = compute
        self.known = torch.zeros(0, dtype=torch.bool)
        self.rows = torch.zeros(0, 0)

    def __call__(self, x: Tensor, index: Tensor) -> Tensor:
        """Features of the images x, [N, D] on their device.

        Args:
            x: [N, ...], the image of a sample the same at each call.
            index: [N] int64 >= 0, each sample's place in its data set.
        """
        places = index.cpu()
        inside = places[places < len(self.known)]
        if len(inside) < len(places) or not bool(self.known[inside].all()):
            self._keep(places, self.compute(x).cpu())
        return self.rows[places].to(x.device, non_blocking=True)

    def _keep(self, places: Tensor, h: Tensor) -> None:
        """Rows of samples that are new; the others stay as they are."""
        self._make_room(int(places.max()) + 1, h)
        new = ~self.known[places]
        self.rows[places[new]] = h[new]
        self.known[places] = True

    def _make_room(self, size: int, h: Tensor) -> None:
        """At least `size` rows like those of h.

        In random order the largest place of all is near that of the first batches, so
        this happens a few times only.
        """
        before = len(self.known)
        if size <= before:
            return
        rows, known = h.new_zeros(size, h.shape[1]), self.known.new_zeros(size)
        if before:
            rows[:before], known[:before] = self.rows, self.known
        self.rows, self.known = rows, known
