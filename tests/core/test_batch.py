import torch

from rrl_dist.core.batch import Batch


def test_extras_are_added_to_a_copy() -> None:
    x = torch.rand(2, 3, 4, 4)
    batch = Batch(x, (x,), torch.zeros(2), torch.arange(2), step=3)
    one = batch.with_extras(a=x)
    two = one.with_extras(b=x + 1)
    assert (set(batch.extras), set(one.extras)) == (set(), {"a"})
    assert two.extras["a"] is x
    assert torch.equal(two.extras["b"], x + 1)
    assert (two.step, two.images is x) == (3, True)
