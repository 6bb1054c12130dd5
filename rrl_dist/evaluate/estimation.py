"""How the information between images and features is estimated."""

from dataclasses import dataclass

from rrl_dist.core.errors import UserError
from rrl_dist.objectives.mutual_information import check_estimator

_LEAST = {
    "batch_size": 2,
    "steps": 1,
    "width": 1,
    "embedding": 1,
    "grid": 1,
    "attack_steps": 1,
}


@dataclass(frozen=True, kw_only=True)
class Estimation:
    """Critics, how they are fitted, and the attack on what they say.

    Attributes:
        estimator: "dv" or "nce"; see `rrl_dist.objectives.mutual_information`. "jsd",
            which is no information in nats, is refused.
        batch_size: images that are told apart, in a step and in an estimate. No
            estimate is to be trusted near its logarithm.
        steps: of fitting the critics, each on one batch.
        lr: of Adam, at every step.
        width: channels of the first layer of the critic on images.
        embedding: dimensions in which both critics' outputs are compared.
        grid: places of an image in each direction, at most.
        attack_steps: of the attack, in each step of fitting and on held-out images.
        relative_step: of the attack, as a share of the ball's radius.

    Raises:
        UserError: if a number is out of range, or there is no such estimator.
    """

    estimator: str
    batch_size: int
    steps: int
    lr: float
    width: int
    embedding: int
    grid: int
    attack_steps: int
    relative_step: float

    def __post_init__(self) -> None:
        check_estimator(self.estimator)
        if self.estimator == "jsd":
            raise UserError(
                "suite.vulnerability.estimator=jsd grows with information and is none "
                "in nats; choose dv|nce"
            )
        for key, least in _LEAST.items():
            if getattr(self, key) < least:
                raise UserError(
                    f"suite.vulnerability.{key}={getattr(self, key)}; set at least "
                    f"{least}"
                )
        for key in ("lr", "relative_step"):
            if not getattr(self, key) > 0:
                raise UserError(
                    f"suite.vulnerability.{key}={getattr(self, key)}; set more than 0"
                )

    def check_images(self, *, train: int, test: int) -> list[str]:
        """Hold the batch against how many images there are.

        Returns:
            what a person should know, a line each.

        Raises:
            UserError: one of the two has less than a batch.
        """
        for name, images in (("training", train), ("test", test)):
            if images < self.batch_size:
                raise UserError(
                    f"suite.vulnerability.batch_size={self.batch_size} is more than "
                    f"the {images} {name} images; set {images} or less"
                )
        if test // self.batch_size > 1:
            return []
        return [
            f"{test} test images are one batch of suite.vulnerability.batch_size="
            f"{self.batch_size}: the estimates of information have no interval"
        ]
