"""Which arm of an experiment learns from which."""

from collections.abc import Mapping
from typing import Any

from rrl_dist.core.errors import UserError


def teachers(arms: Mapping[str, Any], arm: str) -> list[str]:
    """The arms that `arm` is distilled from, nearest first.

    Raises:
        UserError: a teacher is unknown, or arms teach each other in a circle.
    """
    found: list[str] = []
    teacher = arms[arm].get("teacher")
    while teacher is not None:
        if teacher not in arms:
            raise UserError(
                f"arms.{arm}.teacher={teacher} is no arm; there are {', '.join(arms)}"
            )
        if teacher in found or teacher == arm:
            raise UserError(f"arms.{arm} is, by way of {teacher}, its own teacher")
        found.append(teacher)
        teacher = arms[teacher].get("teacher")
    return found


def ordered(arms: Mapping[str, Any]) -> list[str]:
    """Arms in their order, each after its teachers."""
    return sorted(arms, key=lambda arm: len(teachers(arms, arm)))
