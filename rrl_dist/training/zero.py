"""DeepSpeed: optimizer state, gradients and weights cut over the workers (ZeRO).

Rajbhandari et al., arXiv:1910.02054: stage 1 cuts the optimizer's state, stage 2 the
gradients too, stage 3 the weights too; stage 0 cuts nothing.
"""

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib.util import find_spec
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from rrl_dist.core.batch import Batch
from rrl_dist.core.collectives import rank, world_size
from rrl_dist.core.errors import UserError
from rrl_dist.objectives.objective import Objective
from rrl_dist.training.buffers import average_buffers
from rrl_dist.training.checkpoint_parts import Part, is_piece, on_host
from rrl_dist.training.precision import LossScale, autocast, check_clip, check_precision
from rrl_dist.training.zero_settings import check_settings, engine_config
from rrl_dist.training.zero_state import (
    forget_gradients,
    held_of,
    in_part,
    pieces,
    scatter,
)

# They treat each element alone. Others (LARS) take norms of a layer, and would be given
# a slice through several layers.
_ELEMENTWISE = (SGD, Adam, AdamW)


class DeepSpeedStrategy:
    """DeepSpeed's engine around the objective.

    The engine is one of float32; autocast runs inside it. DeepSpeed's own bf16 gives
    batch norm weights of another type than its buffers, which it refuses, and its own
    autocast sends gradients as bfloat16.

    Args:
        stage: of ZeRO, 0 to 3.
        precision: "fp32"; "bf16" or "fp16" for autocast (weights stay float32).
        offload: what the host's memory holds in place of the GPU's: "none";
            "optimizer", its state and its step, from stage 1 on; "all", cut-up weights
            too while no layer uses them, of stage 3.
        options: of `zero_settings.OPTIONS`, keys of DeepSpeed's `zero_optimization`.
        clip_grad: largest global L2 norm of the gradient; None for no limit.
    """

    def __init__(
        self,
        *,
        stage: int,
        precision: str,
        offload: str,
        options: Mapping[str, Any],
        clip_grad: float | None,
    ) -> None:
        check_clip(clip_grad)
        self.stage, self.precision, self.offload = stage, precision, offload
        self.options, self.clip_grad = dict(options), clip_grad
        self.partitions_weights = stage == 3
        self.loss_scale = LossScale() if precision == "fp16" else None

    def check(self, optimizer: Optimizer, workers: int) -> None:
        check_settings(self.stage, self.offload, self.options)
        if self.stage and type(optimizer) not in _ELEMENTWISE:
            raise UserError(
                f"{type(optimizer).__name__} takes norms of whole layers, which ZeRO "
                f"{self.stage} cuts up; use strategy=ddp or deepspeed_zero0, or "
                "optim=sgd or adamw"
            )
        if find_spec("deepspeed") is None:
            raise UserError(
                "strategy=deepspeed_* needs DeepSpeed; pip install "
                "'rrl_dist[deepspeed]', or use strategy=ddp"
            )

    def wrap(
        self, objective: Objective, optimizer: Optimizer, device: torch.device
    ) -> None:
        self.check(optimizer, world_size())
        check_precision(self.precision, gpu=device.type == "cuda")
        self.objective, self.device = objective, device
        self.groups = [list(group["params"]) for group in optimizer.param_groups]
        self.deepspeed = _import_deepspeed(device)
        _join(self.deepspeed, device)
        inside = _Autocast(objective, self.precision, device)
        try:
            self.engine, *_ = self.deepspeed.initialize(
                model=inside,
                optimizer=optimizer,
                config=engine_config(
                    self.stage, self.offload, self.options, self.clip_grad
                ),
            )
        except ValueError as error:  # of its reading of the options
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"strategy.options: DeepSpeed says {reason}") from None
        self.zero = self.engine.optimizer
        if self.stage:
            # Stage 3 takes a step on zeros, which Adam would count.
            self.zero.optimizer.state.clear()

    def load(self, state: dict[str, Any]) -> None:
        if self.stage:
            scatter(self.zero, self.groups, state["optimizer"])
        else:
            self.zero.load_state_dict(state["optimizer"])
        if self.loss_scale is not None and state["loss_scale"] is not None:
            self.loss_scale.load(state["loss_scale"])

    @contextmanager
    def raw(self) -> Iterator[None]:
        """See `Strategy.raw`."""
        with autocast(self.precision, self.device):
            yield
        if self.stage == 3:
            # A module that was passed twice before its backward stays whole otherwise:
            # DeepSpeed counts again from 0 at the second pass. It does this itself
            # after its own backward.
            self.zero.parameter_offload.release_backward_leftovers()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return cast(dict[str, Tensor], self.engine(batch))

    def update(self, loss: Tensor) -> None:
        finite = self._update_sharded(loss) if self.stage else self._update_whole(loss)
        average_buffers(self.objective)
        if self.loss_scale is not None:
            self.loss_scale.note(finite=finite)
        elif not finite:
            raise FloatingPointError("the gradient is not finite")

    def _update_sharded(self, loss: Tensor) -> bool:
        """ZeRO scales and looks for what is not finite over all workers."""
        if self.loss_scale is not None:
            self.zero.override_loss_scale(self.loss_scale.value)
        self.engine.backward(loss)
        self.engine.step()
        forget_gradients(self.zero)
        return not self.zero.overflow

    def _update_whole(self, loss: Tensor) -> bool:
        scale = self.loss_scale
        self.engine.backward(loss if scale is None else loss * scale.value)
        finite = scale is None or scale.unscale(self.objective.parameters())
        if finite:
            if self.clip_grad is not None:
                nn.utils.clip_grad_norm_(self.objective.parameters(), self.clip_grad)
            self.engine.step()
        else:
            self.engine.zero_grad()
        return finite

    @contextmanager
    def gathered(self, *, write: bool = False) -> Iterator[None]:
        """See `Strategy.gathered`."""
        with self._whole(write):
            yield
        if write and self.stage:
            # The optimizer steps on copies of its own.
            self.zero.refresh_fp32_params()

    def _whole(self, write: bool) -> AbstractContextManager[Any]:
        if self.stage < 3:
            return nullcontext()
        parameters = list(self.objective.parameters())
        whole = self.deepspeed.zero.GatheredParameters(
            parameters, modifier_rank=0 if write else None
        )
        return cast(AbstractContextManager[Any], whole)

    def held(self) -> dict[str, Tensor]:
        """See `Strategy.held`."""
        named = self.objective.state_dict(keep_vars=True)
        return {name: held_of(value) for name, value in named.items()}

    def part(self) -> Part | None:
        """See `Strategy.part`."""
        if not self.stage and rank() != 0:
            return None
        named, scale = self.objective.state_dict(keep_vars=True), self.loss_scale
        weights = {name: in_part(value) for name, value in named.items()}
        whole = rank() == 0
        state = {
            "objective": {k: v for k, v in weights.items() if whole or is_piece(v)},
            "optimizer": pieces(self.zero, self.groups)
            if self.stage
            else self.zero.state_dict(),
            "loss_scale": None if scale is None else scale.state(),
        }
        of = world_size() if self.stage else 1
        return Part(on_host(state), number=rank(), of=of)

    def close(self) -> None:
        self.engine.destroy()


class _Autocast(nn.Module):
    """The objective under autocast, inside the engine's own forward."""

    def __init__(
        self, objective: Objective, precision: str, device: torch.device
    ) -> None:
        super().__init__()
        self.objective, self.precision, self.device = objective, precision, device

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        with autocast(self.precision, self.device):
            return cast(dict[str, Tensor], self.objective(batch))


def _import_deepspeed(device: torch.device) -> Any:
    # Asked at import; left to itself it takes a GPU that the run was told not to.
    os.environ["DS_ACCELERATOR"] = device.type
    import deepspeed
    import deepspeed.ops

    # Its warnings are of optimizers and names that this file knows of.
    deepspeed.utils.logger.setLevel("ERROR")
    # torch 2.14 renames collectives that DeepSpeed calls at each step.
    warnings.filterwarnings(
        "ignore", category=FutureWarning, module=r"torch\.distributed\."
    )
    # It would be compiled at the first start, for minutes, to reduce on one machine.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def _join(deepspeed: Any, device: torch.device) -> None:
    """Have DeepSpeed use the process group that is there, or one of this process."""
    if not dist.is_initialized():
        backend = "nccl" if device.type == "cuda" else "gloo"
        store = dist.HashStore()  # type: ignore[attr-defined]  # it is documented
        dist.init_process_group(backend, store=store, rank=0, world_size=1)
    # The device that the engine takes.
    os.environ["LOCAL_RANK"] = str(device.index or 0)
    deepspeed.init_distributed(dist_backend=dist.get_backend())
