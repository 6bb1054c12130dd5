"""In what precision an attack's passes are made.

What is told of an image does not depend on it: wrong is what the model itself gets
wrong. It may only be that in bfloat16 another image is found, or none.
"""

from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, cast

from rrl_dist.core.errors import UserError

PRECISIONS = ("fp32", "bf16")

A = TypeVar("A")


def check_precision(precision: str) -> None:
    """Raises `UserError` if there is no such precision."""
    if precision not in PRECISIONS:
        raise UserError(f"precision={precision}; choose {'|'.join(PRECISIONS)}")


def in_precision(attack: A, precision: str) -> A:
    """The same attack with its passes in that precision; of those in turn, each. An
    attack without such a setting stays as it is, in float32.

    Raises:
        UserError: there is no such precision.
    """
    check_precision(precision)
    made = cast(Any, attack)
    if is_dataclass(attack) and "precision" in {field.name for field in fields(attack)}:
        return cast(A, replace(made, precision=precision))
    if hasattr(attack, "in_precision"):
        return cast(A, made.in_precision(precision))
    return attack
