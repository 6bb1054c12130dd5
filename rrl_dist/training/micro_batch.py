"""Accumulation: a batch passes the encoder in parts, one in memory at a time."""

from torch import nn

from rrl_dist.core.errors import UserError
from rrl_dist.models.encoder import Encoder
from rrl_dist.objectives.objective import Objective


def hold_in_parts(objective: Objective, micro_batch: int | None) -> None:
    """Have an objective's encoders keep activations of so many images at a time.

    That is the one it trains and slow copies of it.

    Args:
        objective: in the mode in which it trains.
        micro_batch: images; None for all at once.

    Raises:
        UserError: a number below 1; or the encoder has batch norm in train mode, whose
            statistics would be those of a part.
    """
    if micro_batch is None:
        return
    if micro_batch < 1:
        raise UserError(f"train.micro_batch={micro_batch}; set at least 1, or null")
    encoders = [m for m in objective.modules() if isinstance(m, Encoder)]
    if objective.encoder not in encoders:
        found = type(objective.encoder).__name__
        raise UserError(f"train.micro_batch is not for a {found}")
    batch_norm = nn.modules.batchnorm._BatchNorm
    inside = [m for encoder in encoders for m in encoder.modules()]
    if any(isinstance(m, batch_norm) and m.training for m in inside):
        raise UserError(
            f"train.micro_batch={micro_batch}: the encoder's batch norm would see "
            "parts of the batch; take a model without it (model=vit_tiny), more "
            "workers with model.sync_bn=true, or train.micro_batch=null"
        )
    for encoder in encoders:
        encoder.micro_batch = micro_batch
