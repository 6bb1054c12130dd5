"""Ray Train's set-up of a process group, without what it leaves behind where it fails.

Ray keeps the places of workers that do not come together until the whole job ends, and
the next group would wait for them for ever.
"""

from dataclasses import dataclass
from typing import Any

from ray.train.torch.config import TorchConfig, _TorchBackend
from ray.util.placement_group import (
    get_current_placement_group,
    remove_placement_group,
)


class _Backend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        places = worker_group.execute_single(0, get_current_placement_group)
        try:
            super().on_start(worker_group, backend_config)
        except BaseException:
            remove_placement_group(places)
            raise


@dataclass
class ProcessGroup(TorchConfig):
    """Its settings, see `TorchConfig`."""

    @property
    def backend_cls(self) -> type[_Backend]:
        """What sets it up."""
        return _Backend
