"""Batch norm's running statistics, made equal on all workers."""

import torch
import torch.distributed as dist
from torch import nn

from rrl_dist.core.collectives import world_size
from rrl_dist.models.sync_bn import SyncBatchNorm


@torch.no_grad()
def average_buffers(module: nn.Module) -> None:
    """Set batch norm's running statistics to their mean over workers, at once.

    Only where they move and are not the same on all workers anyway: averaging a
    constant may change its last digit.

    Otherwise workers with local batch norm attack different networks, and a resumed
    run, whose workers all load rank 0's buffers, is not the run that was killed.
    """
    if world_size() == 1:
        return
    buffers = [
        buffer
        for m in module.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm)
        and not isinstance(m, SyncBatchNorm)
        and m.training
        for buffer in (m.running_mean, m.running_var)
        if buffer is not None
    ]
    if not buffers:
        return
    flat = torch.cat([b.reshape(-1) for b in buffers])
    dist.all_reduce(flat)
    flat /= world_size()
    for buffer, part in zip(
        buffers, torch.split(flat, [b.numel() for b in buffers]), strict=True
    ):
        buffer.copy_(part.view_as(buffer))
