import hashlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rrl_dist.core.randomness import normal, stream, torch_stream, uniform

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15

keys = st.lists(
    st.one_of(st.integers(-(2**40), 2**40), st.text(max_size=8)), max_size=3
)


def splitmix(z: int) -> int:
    """The finalizer of SplitMix64, as its paper's figure has it."""
    z &= MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def literal_uniform(seed: int, key: list[int | str], i: int, n: int) -> list[float]:
    text = repr((seed, *key)).encode()
    name = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
    state = splitmix(i * GOLDEN + name)
    return [(splitmix(state + k * GOLDEN) >> 40) / 2**24 for k in range(1, n + 1)]


def many(*, samples: int, n: int, key: str = "moments") -> Tensor:
    return uniform(3, key, index=torch.arange(samples), n=n).double()


@settings(deadline=None)
@given(
    seed=st.integers(-(2**63), 2**70),
    key=keys,
    index=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5),
    n=st.integers(0, 5),
)
def test_equals_splitmix64_in_plain_integers(
    seed: int, key: list[int | str], index: list[int], n: int
) -> None:
    draws = uniform(seed, *key, index=torch.tensor(index, dtype=torch.int64), n=n)
    assert draws.shape == (len(index), n)
    assert draws.dtype == torch.float32
    assert draws.tolist() == [literal_uniform(seed, key, i, n) for i in index]


@settings(deadline=None)
@given(
    index=st.lists(st.integers(0, 2**40), min_size=1, max_size=12),
    data=st.data(),
    n=st.integers(1, 6),
)
def test_a_draw_belongs_to_its_sample(
    index: list[int], data: st.DataObject, n: int
) -> None:
    whole = uniform(0, "crop", 7, index=torch.tensor(index), n=n)
    places = data.draw(st.permutations(range(len(index))))
    places = places[: data.draw(st.integers(1, len(index)))]
    part = torch.tensor([index[place] for place in places])
    assert torch.equal(uniform(0, "crop", 7, index=part, n=n), whole[places])
    fewer = data.draw(st.integers(1, n))
    first = uniform(0, "crop", 7, index=torch.tensor(index), n=fewer)
    assert torch.equal(first, whole[:, :fewer])


def test_the_type_of_the_index_does_not_matter() -> None:
    index = torch.tensor([0, 5, 2**31 - 1])
    expected = uniform(1, "x", index=index, n=3)
    assert torch.equal(uniform(1, "x", index=index.int(), n=3), expected)


def test_another_seed_key_or_sample_gives_other_draws() -> None:
    index = torch.arange(4)
    settings_of = [
        (0, ("a", 1)),
        (1, ("a", 1)),
        (0, ("a", 2)),
        (0, ("b", 1)),
        (0, ("a", "1")),
        (0, ("a1",)),
        (0, ("a",)),
        (0, (1, "a")),
        (0, ()),
        (-1, ("a", 1)),
        (2**64, ("a", 1)),
    ]
    seen = [uniform(seed, *key, index=index, n=4) for seed, key in settings_of]
    for i, one in enumerate(seen):
        for other in seen[i + 1 :]:
            assert not bool((one == other).any())
        assert len(set(one.flatten().tolist())) == one.numel()


def test_uniform_is_uniform_on_the_half_open_interval() -> None:
    u = many(samples=20_000, n=10)
    assert float(u.min()) >= 0.0
    assert float(u.max()) < 1.0
    count = u.numel()
    assert abs(float(u.mean()) - 1 / 2) < 5 * math.sqrt(1 / 12 / count)
    assert abs(float(u.var()) - 1 / 12) < 5 * math.sqrt(1 / 180 / count)
    cells = torch.histc(u.float(), bins=64, min=0, max=1).double()
    chi_square = float(((cells - count / 64).square() / (count / 64)).sum())
    # 63 degrees of freedom: mean 63, standard deviation 11.2.
    assert 63 - 5 * 11.2 < chi_square < 63 + 5 * 11.2
    # All 24 bits are in use, the lowest too.
    assert abs(float((u * 2**24).long().remainder(2).double().mean()) - 0.5) < 0.01


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((slice(None, -1), 0), (slice(1, None), 0)),
        ((slice(None, -2), 0), (slice(2, None), 0)),
        ((slice(None), 0), (slice(None), 1)),
        ((slice(None), 0), (slice(None), 2)),
        ((slice(None, -1), 1), (slice(1, None), 0)),
        ((slice(None, -1), 0), (slice(1, None), 1)),
    ],
)
def test_neighbouring_samples_and_draws_are_not_correlated(one, other) -> None:
    u = many(samples=40_000, n=3)
    both = torch.stack([u[one], u[other]])
    assert abs(float(torch.corrcoef(both)[0, 1])) < 5 / math.sqrt(40_000)


def test_streams_of_two_seeds_are_not_correlated() -> None:
    index = torch.arange(40_000)
    both = torch.cat([uniform(seed, "x", index=index, n=1) for seed in (0, 1)], dim=1)
    assert abs(float(torch.corrcoef(both.T)[0, 1])) < 5 / math.sqrt(40_000)


def test_normal_has_the_moments_of_a_normal() -> None:
    z = normal(0, "noise", index=torch.arange(50_000), n=4).double()
    count = z.numel()
    assert z.shape == (50_000, 4)
    assert bool(z.isfinite().all())
    assert abs(float(z.mean())) < 5 / math.sqrt(count)
    assert abs(float(z.square().mean()) - 1) < 5 * math.sqrt(2 / count)
    assert abs(float(z.pow(3).mean())) < 5 * math.sqrt(15 / count)
    assert abs(float(z.pow(4).mean()) - 3) < 5 * math.sqrt(96 / count)
    within = float((z.abs() < 1).double().mean())
    assert abs(within - math.erf(1 / math.sqrt(2))) < 0.006
    correlation = torch.corrcoef(z.T) - torch.eye(4)
    assert float(correlation.abs().max()) < 5 / math.sqrt(50_000)


def test_normal_is_finite_where_the_uniform_draw_is_zero() -> None:
    index = torch.tensor([608_766])  # one of 2**24 samples has such a draw
    assert float(uniform(0, "noise", index=index, n=2)[0, 0]) == 0.0
    assert bool(normal(0, "noise", index=index, n=1).isfinite().all())


def test_normal_draws_belong_to_samples() -> None:
    whole = normal(0, "noise", index=torch.arange(50), n=3)
    part = normal(0, "noise", index=torch.tensor([31, 4]), n=3)
    torch.testing.assert_close(part, whole[[31, 4]], rtol=0, atol=1e-6)


def test_streams_repeat_and_differ_by_key() -> None:
    def host(*key: int | str) -> list[float]:
        return stream(*key).random(8).tolist()  # type: ignore[arg-type]

    def torch_host(*key: int | str) -> list[float]:
        return torch.rand(8, generator=torch_stream(*key)).tolist()  # type: ignore[arg-type]

    for draw in (host, torch_host):
        assert draw(0, "order", 1) == draw(0, "order", 1)
        others = [(0, "order", 2), (1, "order", 1), (0, "probe", 1), (0, "order")]
        for other in others:
            assert draw(0, "order", 1) != draw(*other)


def test_streams_leave_the_global_generators_alone() -> None:
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    stream(0, "x").random(3)
    torch.rand(3, generator=torch_stream(0, "x"))
    uniform(0, "x", index=torch.arange(3), n=2)
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpy_before).all()


@pytest.mark.gpu
def test_a_gpu_draws_the_same() -> None:
    index = torch.arange(1000)
    expected = uniform(5, "x", index=index, n=7)
    assert torch.equal(uniform(5, "x", index=index.cuda(), n=7).cpu(), expected)
