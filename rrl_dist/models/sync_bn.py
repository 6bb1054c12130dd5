"""Batch norm whose statistics are those of the global batch, on any device.

torch's own SyncBatchNorm refuses CPU tensors, so what is tested on gloo and what runs
on NCCL would be two codes. This is one, over collectives that carry gradients.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rrl_dist.core.collectives import all_mean, all_sum, world_size


class _Global(torch.autograd.Function):
    """Batch norm over all workers: [N, C, ...] -> the same, and mean and variance [C].

    Keeps the input alone for the backward, where autograd's own graph of these
    operations would keep four tensors of its size.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        wide = x.float()  # sums over a batch lose too much in bf16
        dims = _all_but_channels(x)
        # Two passes: E[x^2] - E[x]^2 cancels where the mean is large.
        mean = all_mean(wide.mean(dims))
        var = all_mean((wide - _per_channel(mean, x)).square().mean(dims))
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(var + eps))
        ctx.mark_non_differentiable(mean, var)
        y = F.batch_norm(wide, mean, var, weight, bias, training=False, eps=eps)
        return y.to(x.dtype), mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd = ctx.saved_tensors
        dims = _all_but_channels(x)
        wide, dy = x.float(), dy.float()
        normal = (wide - _per_channel(mean, x)) * _per_channel(rstd, x)
        d_bias, d_weight = dy.sum(dims), (dy * normal).sum(dims)
        # A sample's gradient through mean and variance is every worker's business; the
        # strategy averages the parameters' own.
        count = x.numel() // x.shape[1] * world_size()
        shift, slope = all_sum(torch.stack([d_bias, d_weight])) / count
        dx = dy - _per_channel(shift, x) - normal * _per_channel(slope, x)
        scale = rstd if weight is None else rstd * weight
        dx = (dx * _per_channel(scale, x)).to(x.dtype)
        return (
            (dx, None, None, None) if weight is None else (dx, d_weight, d_bias, None)
        )


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
        y, mean, var = _Global.apply(input, self.weight, self.bias, self.eps)
        count = input.numel() // input.shape[1] * world_size()
        self._update_buffers(mean, var, count=count)
        return cast(Tensor, y)

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


def _all_but_channels(x: Tensor) -> list[int]:
    return [d for d in range(x.dim()) if d != 1]


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
