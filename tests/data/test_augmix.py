"""AugMix: what is mixed, how much of it, and from which draws."""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rrl_dist.core.errors import UserError
from rrl_dist.data.augmix import AugMix, gamma_quantile
from rrl_dist.data.augmix_operations import NAMES, apply
from rrl_dist.data.views import Views
from tests.objectives.learning import pixels, split

KEY = ("test", 3)
EVERY_SETTING = st.fixed_dictionaries(
    {
        "severity": st.floats(0.1, 10),
        "width": st.integers(1, 4),
        "depth": st.sampled_from([-1, 1, 2, 4]),
        "alpha": st.sampled_from([0.1, 0.5, 1.0, 7.0]),
    }
)


def augmix(**changed: Any) -> AugMix:
    options = {"severity": 3.0, "width": 3, "depth": -1, "alpha": 1.0, **changed}
    return AugMix(**options)


def images(count: int, side: int = 16, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, side, side, generator=generator)


def drawn(operation: AugMix, x: Tensor, index: Tensor | None = None) -> Tensor:
    index = torch.arange(len(x)) if index is None else index
    return operation(x, seed=0, key=KEY, index=index)


@settings(max_examples=40, deadline=None)
@given(options=EVERY_SETTING, seed=st.integers(0, 1000))
def test_a_mixture_lies_between_the_image_and_its_chains(
    options: dict[str, Any], seed: int
) -> None:
    x, index = images(5, seed=seed), torch.arange(5) + seed
    operation = augmix(**options)
    share, weights, chains = operation.parts(x, seed=0, key=KEY, index=index)
    assert len(chains) == weights.shape[1] == options["width"]
    assert float(weights.min()) >= 0
    torch.testing.assert_close(weights.sum(1), torch.ones(5))
    assert float(share.min()) >= 0
    assert float(share.max()) <= 1
    mixed = drawn(operation, x, index)
    every = torch.stack([x, *chains])
    assert bool((mixed >= every.amin(0) - 1e-6).all())
    assert bool((mixed <= every.amax(0) + 1e-6).all())
    for row in range(5):
        mix = sum(w * chain[row] for w, chain in zip(weights[row], chains, strict=True))
        wanted = (1 - share[row]) * x[row] + share[row] * mix
        torch.testing.assert_close(mixed[row], wanted, atol=1e-6, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    options=EVERY_SETTING,
    order=st.permutations(range(20)),
    cut=st.integers(1, 19),
    side=st.sampled_from([7, 16]),
)
def test_a_sample_has_the_same_bits_in_any_batch(
    options: dict[str, Any], order: list[int], cut: int, side: int
) -> None:
    x, index = images(20, side), torch.arange(20) * 13 + 5
    operation, rows = augmix(**options), torch.tensor(order)
    whole = drawn(operation, x, index)
    for part in (rows[:cut], rows[cut:], rows[:1]):
        assert torch.equal(drawn(operation, x[part], index[part]), whole[part])


def test_threads_do_not_change_a_bit_and_the_input_stays() -> None:
    x = images(64, 33)
    given = x.clone()
    whole = drawn(augmix(alpha=0.5), x)
    before = torch.get_num_threads()
    torch.set_num_threads(3 - min(before, 2))
    try:
        assert torch.equal(drawn(augmix(alpha=0.5), x), whole)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(x, given)


def test_draws_differ_between_keys_seeds_and_samples() -> None:
    x, index = images(1).expand(40, -1, -1, -1), torch.arange(40)
    first = augmix()(x, seed=0, key=KEY, index=index)
    assert len(torch.unique(first.flatten(1), dim=0)) > 35
    for seed, key in ((1, KEY), (0, ("other", 3))):
        changed = augmix()(x, seed=seed, key=key, index=index) != first
        assert float(changed.flatten(1).any(1).float().mean()) > 0.9


def literal_chain(x: Tensor, steps: list[tuple[str, float, float]]) -> Tensor:
    """One image through operations, one after another."""
    for name, level, sign in steps:
        place = torch.tensor([NAMES.index(name)])
        numbers = (torch.tensor([v], dtype=torch.float64) for v in (level, sign))
        x = apply(x[None], place, *numbers)[0]
    return x


def test_chains_are_their_operations_one_after_another() -> None:
    x, operation = images(30), augmix(severity=8.0, depth=2, width=2)
    draws = torch.rand(30, 2, 2, 3, generator=torch.Generator().manual_seed(1)).double()
    lengths = torch.tensor([[1, 2], [2, 1], [2, 2]] * 10)
    found = operation._chains(x, lengths, draws)
    for row in range(30):
        for chain in range(2):
            steps = [
                (NAMES[int(9 * kind)], 0.1 + 7.9 * level, 1.0 if side < 0.5 else -1.0)
                for kind, level, side in draws[row, chain].tolist()
            ][: int(lengths[row, chain])]
            wanted = literal_chain(x[row], steps)
            assert torch.equal(found[chain][row], wanted)


@pytest.mark.parametrize("alpha", [0.1, 1.0, 4.0])
def test_shares_have_the_moments_of_dirichlet_and_beta(alpha: float) -> None:
    x, index = torch.zeros(20_000, 3, 1, 1), torch.arange(20_000)
    operation = augmix(alpha=alpha, depth=1)
    share, weights, _ = operation.parts(x, seed=0, key=KEY, index=index)
    for found, parts in ((share[:, None], 2), (weights, 3)):
        mean = 1 / parts
        variance = mean * (1 - mean) / (parts * alpha + 1)
        torch.testing.assert_close(
            found.mean(0), torch.full_like(found[0], mean), atol=0.01, rtol=0
        )
        torch.testing.assert_close(
            found.var(0), torch.full_like(found[0], variance), atol=0.005, rtol=0.02
        )
    correlation = torch.corrcoef(torch.cat([share[:, None], weights], 1).T)
    assert float(correlation[0, 1:].abs().max()) < 0.03, "m is drawn apart"
    # Of three that sum to 1, each two have a correlation of -1/2.
    torch.testing.assert_close(correlation[1, 2], torch.tensor(-0.5), atol=0.03, rtol=0)


@settings(max_examples=100, deadline=None)
@given(alpha=st.floats(0.1, 100), p=st.floats(2**-25, 1 - 2**-25))
def test_the_gamma_quantile_is_the_distributions_inverse(
    alpha: float, p: float
) -> None:
    given = torch.tensor([p], dtype=torch.float64)
    x = gamma_quantile(given, alpha)
    back = torch.special.gammainc(torch.full_like(x, alpha), x)
    torch.testing.assert_close(back, given, atol=1e-12, rtol=1e-9)


def test_the_gamma_quantile_of_one_is_the_closed_form() -> None:
    p = torch.linspace(2**-25, 1 - 2**-25, 50, dtype=torch.float64)
    torch.testing.assert_close(gamma_quantile(p, 1.0), -torch.log1p(-p))


def test_a_random_depth_is_one_to_three_and_a_fixed_one_is_it() -> None:
    draws = torch.rand(3000, 3, generator=torch.Generator().manual_seed(0))
    found = torch.bincount(augmix()._lengths(draws).flatten(), minlength=5)
    assert found[0] == found[4] == 0
    assert all(abs(int(n) / 9000 - 1 / 3) < 0.03 for n in found[1:4])
    assert set(augmix(depth=5)._lengths(draws).flatten().tolist()) == {5}


def test_severity_is_a_maximum_that_each_operation_draws_below(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Tensor] = []

    def noted(x: Tensor, operation: Tensor, level: Tensor, sign: Tensor) -> Tensor:
        seen.append(level)
        return apply(x, operation, level, sign)

    monkeypatch.setattr("rrl_dist.data.augmix.apply", noted)
    x = torch.zeros(500, 3, 2, 2)
    drawn(augmix(severity=3.0), x)
    levels = torch.cat(seen)
    assert 0.1 <= float(levels.min()) < 0.11
    assert 2.99 < float(levels.max()) <= 3.0
    assert float(levels.mean()) == pytest.approx(1.55, abs=0.05)


def test_grey_stays_grey_and_digits_stay_near() -> None:
    """At 16 px a shift is at most one pixel at AugMix's severity."""
    grey = pixels(split("test"))[:50].float() / 255
    mixed = drawn(augmix(), grey)
    assert torch.equal(mixed[:, 0], mixed[:, 1])
    assert torch.equal(mixed[:, 0], mixed[:, 2])
    changed = (mixed - grey).abs().mean((1, 2, 3))
    assert float((changed > 0.003).float().mean()) > 0.8, "few stay as they are"
    ink, mixed_ink = grey[:, 0].flatten(1), mixed[:, 0].flatten(1)
    alike = torch.nn.functional.cosine_similarity(ink, mixed_ink, dim=1)
    assert float(alike.median()) > 0.95, "what is seen is the digit"


def test_it_is_an_operation_of_views() -> None:
    views = Views(policies=[[augmix()], []])
    stored = (images(6) * 255).to(torch.uint8)
    mixed, plain = views(stored, torch.arange(6), seed=0, epoch=0)
    assert mixed.shape == plain.shape
    assert not torch.equal(mixed, plain)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"severity": 0.0}, "AugMix has severity=0.0; set 0.1 to 10"),
        ({"severity": math.nan}, "AugMix has severity=nan; set 0.1 to 10"),
        ({"width": 0}, "AugMix has width=0; set at least 1"),
        ({"depth": 0}, "AugMix has depth=0; set at least 1, or -1 for 1 to 3"),
        ({"alpha": 0.0}, "AugMix has alpha=0.0; set 0.1 to 100"),
    ],
)
def test_a_number_out_of_its_range_is_told(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as found:
        augmix(**changed)
    assert str(found.value) == said


@pytest.mark.gpu
def test_mixtures_on_a_gpu_are_those_of_the_cpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    x, index = images(200, 32), torch.arange(200)
    here = drawn(augmix(), x, index)
    there = drawn(augmix(), x.cuda(), index.cuda())
    apart = (there.cpu() - here).abs()
    # A value at a step of posterize, say, may be rounded to the other side.
    assert float((apart > 1e-4).float().mean()) < 1e-3
    assert torch.equal(drawn(augmix(), x[:7].cuda(), index[:7].cuda()), there[:7])
