"""Batch norm whose statistics are those of the global batch, on any device.

torch's own SyncBatchNorm refuses CPU tensors, so what is tested on gloo and what runs
on NCCL would be two codes. This is one, over collectives that carry gradients.
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from rrl_dist.core.collectives import all_mean, world_size


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm over all workers; with one worker, torch's own.

    Input [N, C] or [N, C, ...], the same N on every worker. Weights, buffers and
    state dict are those of `nn.BatchNorm2d`.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected [N, C, ...], got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(input)
        self._check_input_dim(input)
        x = input.float()  # sums over a batch lose too much in bf16
        dims = [d for d in range(x.dim()) if d != 1]
        # Two passes: E[x^2] - E[x]^2 cancels where the mean is large.
        mean = all_mean(x.mean(dims))
        centered = x - _per_channel(mean, x)
        var = all_mean(centered.square().mean(dims))
        self._update_buffers(mean, var, count=x.numel() // x.shape[1] * world_size())
        y = centered * _per_channel(torch.rsqrt(var + self.eps), x)
        if self.affine:
            y = y * _per_channel(self.weight, x) + _per_channel(self.bias, x)
        return y.to(input.dtype)

    @torch.no_grad()
    def _update_buffers(self, mean: Tensor, var: Tensor, *, count: int) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum
        if momentum is None:  # torch's convention: cumulative average
            momentum = 1.0 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, momentum)
        self.running_var.lerp_(var * (count / max(count - 1, 1)), momentum)


class SyncBatchNormAct(SyncBatchNorm):
    """The same for timm's batch norm that drops out and activates too."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        return cast(Tensor, self.act(self.drop(super().forward(input))))


def _per_channel(v: Tensor, like: Tensor) -> Tensor:
    return v.view(1, -1, *([1] * (like.dim() - 2)))


def convert_sync_bn(module: nn.Module) -> nn.Module:
    """Replace every batch norm in `module` by a `SyncBatchNorm`, in place.

    Parameters and buffers are shared, not copied. Returns the module, which is a new
    one only where it is itself a batch norm.
    """
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        return _converted(module)
    for name, child in module.named_children():
        setattr(module, name, convert_sync_bn(child))
    return module


def _converted(bn: Any) -> SyncBatchNorm:
    activates = hasattr(bn, "drop") and hasattr(bn, "act")
    sync = (SyncBatchNormAct if activates else SyncBatchNorm)(
        bn.num_features,
        eps=bn.eps,
        momentum=bn.momentum,
        affine=bn.affine,
        track_running_stats=bn.track_running_stats,
    )
    sync.weight, sync.bias = bn.weight, bn.bias
    sync.running_mean, sync.running_var = bn.running_mean, bn.running_var
    sync.num_batches_tracked = bn.num_batches_tracked
    sync.training = bn.training
    if isinstance(sync, SyncBatchNormAct):
        sync.drop, sync.act = bn.drop, bn.act
    return sync
