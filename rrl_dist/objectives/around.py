"""A method that adds to another's loss, or changes what it sees."""

from collections.abc import Mapping

from torch import Tensor, nn

from rrl_dist.core.errors import UserError
from rrl_dist.objectives.objective import Frozen, Objective, name_of


class Around(Objective):
    """Holds the method it is around, and is for the loop what that is.

    Subclasses define `inner`, `forward` and `after_step`, each with a call of the
    base's own. What they pass from `inner` to `forward` they name after themselves, so
    that several may be around one another.

    Args:
        base: the method inside.

    Raises:
        UserError: one of the same kind is inside already.
    """

    def __init__(self, base: Objective) -> None:
        super().__init__()
        if any(type(module) is type(self) for module in base.modules()):
            name = type(self).__name__
            raise UserError(
                f"{name} is around another {name}, and the two would share their "
                "names; keep one of them"
            )
        self.base = base
        # Not registered a second time: a state dict names each weight once.
        self.__dict__["encoder"] = base.encoder
        self.views = base.views
        self.needs_labels = base.needs_labels
        self.moves_weights = base.moves_weights
        self.reads_weights = base.reads_weights
        self.has_distribution = base.has_distribution
        self.teacher: Frozen | None = getattr(base, "teacher", None)

    def distribution(self, h: Tensor, *, anchors: int, temperature: float) -> Tensor:
        return self.base.distribution(h, anchors=anchors, temperature=temperature)

    def check(self, workers: int) -> None:
        self.base.check(workers)

    def trained(self) -> nn.Module:
        return self.base.trained()

    def base_terms(self, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the base returned, its loss under its own name: "simclr_loss"."""
        own = {name: value for name, value in terms.items() if name != "loss"}
        return {f"{name_of(self.base)}_loss": terms["loss"], **own}
