"""What DeepSpeed's engine is told, and what it is not asked for."""

from collections.abc import Mapping
from typing import Any

from rrl_dist.core.errors import UserError

# Others move or copy the state that checkpoints are made of.
OPTIONS = {
    "allgather_bucket_size",
    "allgather_partitions",
    "contiguous_gradients",
    "overlap_comm",
    "reduce_bucket_size",
    "reduce_scatter",
    "stage3_max_live_parameters",
    "stage3_max_reuse_distance",
    "stage3_param_persistence_threshold",
    "stage3_prefetch_bucket_size",
    "sub_group_size",
}

# What may be kept in the host's memory, as DeepSpeed calls it.
_OFFLOADED = {
    "none": (),
    "optimizer": ("offload_optimizer",),
    "all": ("offload_optimizer", "offload_param"),
}


def check_settings(stage: int, offload: str, options: Mapping[str, Any]) -> None:
    """Find what DeepSpeed has no answer to.

    Raises:
        UserError: another stage or option, or offloading of what a stage does not cut.
    """
    if stage not in (0, 1, 2, 3):
        raise UserError(f"strategy.stage={stage}; choose 0, 1, 2 or 3")
    for key in sorted(options.keys() - OPTIONS):
        mend = f"choose from {', '.join(sorted(OPTIONS))}"
        if key.startswith("offload"):
            mend = "set strategy.offload=optimizer or all"
        raise UserError(f"strategy.options.{key} is not supported; {mend}")
    told = f"strategy.offload={offload}"
    if offload not in _OFFLOADED:
        raise UserError(f"{told}; choose {', '.join(_OFFLOADED)}")
    if stage == 0 and offload != "none":
        raise UserError(
            f"{told}: ZeRO 0 cuts up nothing that could be kept elsewhere; use "
            "strategy=deepspeed_zero1, 2 or 3, or strategy.offload=none"
        )
    if stage < 3 and offload == "all":
        raise UserError(
            f"{told}: ZeRO {stage} keeps weights whole; use strategy=deepspeed_zero3, "
            "or strategy.offload=optimizer"
        )


def engine_config(
    stage: int, offload: str, options: Mapping[str, Any], clip_grad: float | None
) -> dict[str, Any]:
    """What `deepspeed.initialize` takes, of settings that `check_settings` let pass."""
    zero = {
        "stage": stage,
        # It would replace torch's linear for the whole process.
        "memory_efficient_linear": False,
        **{part: {"device": "cpu"} for part in _OFFLOADED[offload]},
        **options,
    }
    return {
        "train_micro_batch_size_per_gpu": 1,  # counted nowhere but in its log
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        # Its own Adam for the host would be compiled, and is of no other optimizer.
        "zero_force_ds_cpu_optimizer": False,
        # Stage 0 clips as plain torch does, to the last bit.
        "gradient_clipping": (clip_grad or 0.0) if stage else 0.0,
        "steps_per_print": 2**31,
    }
