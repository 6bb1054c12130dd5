"""The probe of a run: what rank 0 looks at, and where the weights are whole."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from rrl_dist.core.collectives import rank
from rrl_dist.data.datasets import DataSource
from rrl_dist.training.build import build
from rrl_dist.training.probe import Probe
from rrl_dist.training.strategies import Strategy


def open_probe(
    stage: Mapping[str, Any],
    source: DataSource,
    encoder: nn.Module,
    strategy: Strategy,
    device: torch.device,
) -> Callable[[], dict[str, Any]] | None:
    """What a worker calls when a probe is due, or None.

    Only rank 0 measures. The others take part where the weights are cut up, which
    they are outside `gathered`, and there a copy is measured: a forward of the encoder
    itself would cut them up again, and wait for workers that measure nothing.

    Args:
        stage: as for `train_stage`.
        source: of the images.
        encoder: not wrapped yet.
        strategy: that will wrap it.
        device: of this worker.
    """
    config = stage["probe"]
    cut = strategy.partitions_weights
    if config is None or not config["every_epochs"] or (rank() != 0 and not cut):
        return None
    probe = _probe(config, source, seed=int(stage["seed"])) if rank() == 0 else None
    whole = deepcopy(encoder) if cut and probe is not None else encoder

    def measure() -> dict[str, Any]:
        if cut:
            with strategy.gathered():
                state = encoder.state_dict()
                if probe is not None:
                    whole.load_state_dict(state)
        return {} if probe is None else probe(whole, device)

    return measure


def _probe(config: Mapping[str, Any], source: DataSource, *, seed: int) -> Probe:
    options = {k: v for k, v in config.items() if k not in ("every_epochs", "attack")}
    return Probe(
        train=source.split("train"),
        val=source.split("val"),
        num_classes=source.num_classes,
        attack=build(config["attack"], seed=seed),
        **options,
    )
