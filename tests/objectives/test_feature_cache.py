import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rrl_dist.objectives.feature_cache import FeatureCache
from tests.objectives.harness import small_encoder


def pixels(index: Tensor) -> Tensor:
    """The image of each sample, always the same."""
    made = [torch.Generator().manual_seed(int(i)) for i in index]
    return torch.stack([torch.rand(3, 8, 8, generator=g) for g in made])


@given(
    st.lists(
        st.lists(st.integers(0, 60), min_size=1, max_size=8, unique=True),
        min_size=1,
        max_size=8,
    )
)
def test_it_gives_what_was_computed_and_computes_only_for_new_samples(
    batches: list[list[int]],
) -> None:
    calls: list[int] = []

    def compute(x: Tensor) -> Tensor:
        calls.append(len(x))
        return torch.stack([x.sum((1, 2, 3)), x[:, 0, 0, 0]], dim=1)

    cache, seen, expected = FeatureCache(compute), set[int](), list[int]()
    for batch in batches:
        index = torch.tensor(batch)
        x = pixels(index)
        found = cache(x, index)
        assert torch.equal(found, torch.stack([x.sum((1, 2, 3)), x[:, 0, 0, 0]], 1))
        if not set(batch) <= seen:
            expected.append(len(batch))
        seen |= set(batch)
    assert calls == expected


def test_features_do_not_depend_on_when_they_were_seen_or_with_whom() -> None:
    """Bit for bit: a run that goes on begins with an empty cache."""
    encoder = small_encoder(0, sync_bn=False).eval()
    compute = torch.no_grad()(encoder)
    order = [
        torch.randperm(32, generator=torch.Generator().manual_seed(e)) for e in (0, 1)
    ]
    whole, later = FeatureCache(compute), FeatureCache(compute)
    for index in order[0].split(8):
        whole(pixels(index), index)
    for index in order[1].split(8):
        x = pixels(index)
        assert torch.equal(whole(x, index), compute(x))
        assert torch.equal(whole(x, index), later(x, index))


def test_what_it_hands_out_is_not_what_it_keeps() -> None:
    cache, index = FeatureCache(lambda x: x.flatten(1)), torch.tensor([4, 2])
    x = pixels(index)
    cache(x, index).zero_()
    cache(x, index).zero_()
    assert torch.equal(cache(x, index), x.flatten(1))


def test_room_grows_with_the_places_that_are_met() -> None:
    cache = FeatureCache(lambda x: x.flatten(1)[:, :5])
    for place in (3, 1000):
        index = torch.tensor([place])
        cache(pixels(index), index)
    assert cache.rows.shape == (1001, 5)
    assert int(cache.known.sum()) == 2
