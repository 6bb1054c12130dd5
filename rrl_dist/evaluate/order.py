"""In what order attacks in turn are cheapest.

What one has broken costs the next nothing, and the worst case over attacks does not
depend on their order.
"""

from rrl_dist.attacks.cascade import Cascade
from rrl_dist.attacks.passes import Costed
from rrl_dist.attacks.result import Attack
from rrl_dist.core.errors import UserError

ORDERS = ("cheapest", "standard")
# Of the images that an adversarially trained network gets right, what each attack alone
# breaks: 256 images of CIFAR-10, Linf 8/255, the small network of docs/attacks.md.
_BREAKS = {"apgd-ce": 0.48, "apgd-t": 0.57, "fab-t": 0.57, "square": 0.48}
OTHERS_BREAK = 0.45  # no figures: after those that have some
_CLASSES = 10  # an order must not depend on the data
# A gradient with respect to the image takes about as long as a forward pass.
_BACKWARD = 1.0


def work_of(attack: Attack, classes: int) -> float | None:
    """Forward passes, or what takes as long, of one sample that stays right; None of an
    attack that does not say."""
    if not isinstance(attack, Costed):
        return None
    cost = attack.cost(classes)
    return cost.forward + _BACKWARD * cost.backward


def in_order(cascade: Cascade, order: str) -> Cascade:
    """Its attacks by cost for each image that they may be expected to break.

    Args:
        cascade: some attacks in turn.
        order: "cheapest", or "standard" for the order that it has.

    Raises:
        UserError: there is no such order.
    """
    if order not in ORDERS:
        raise UserError(f"suite.order={order}; choose {'|'.join(ORDERS)}")
    works = {attack.name: work_of(attack, _CLASSES) for attack in cascade.attacks}
    if order == "standard" or None in works.values():
        return cascade
    price = {n: (w or 0) / _BREAKS.get(n, OTHERS_BREAK) for n, w in works.items()}
    return cascade.reordered(sorted(price, key=lambda name: price[name]))
