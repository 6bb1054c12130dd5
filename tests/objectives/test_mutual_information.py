"""Estimates of mutual information, over formulas written out and known values."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rrl_dist.core.collectives import rank, world_size
from rrl_dist.core.errors import UserError
from rrl_dist.objectives.mutual_information import ceiling, estimate
from tests.gloo import run_workers
from tests.objectives.information_by_hand import LITERAL

ESTIMATORS = ("dv", "nce", "jsd")
every_estimator = pytest.mark.parametrize("estimator", ESTIMATORS)
both_kinds = pytest.mark.parametrize("faithful", [False, True])


def embeddings(n: int, places: int, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    local = torch.randn(n, 5, places, generator=generator)
    return local, torch.randn(n, 5, generator=generator) + 0.3 * local[..., 0]


def of_scores(scores: Tensor, *, estimator: str, faithful: bool = False) -> float:
    """Of u [N, N, L], place by representation, which identities give."""
    whole = torch.eye(len(scores))
    return float(estimate(scores, whole, estimator=estimator, faithful=faithful))


@pytest.mark.parametrize(("estimator", "faithful"), LITERAL)
@pytest.mark.parametrize(("n", "places"), [(2, 1), (7, 3), (5, 16)])
def test_each_is_its_formula(
    estimator: str, faithful: bool, n: int, places: int
) -> None:
    local, whole = embeddings(n, places)

    def u(i: int, j: int, place: int) -> float:
        return float(local[i, :, place].double() @ whole[j].double())

    wanted = LITERAL[estimator, faithful](u, n, places)
    found = estimate(local, whole, estimator=estimator, faithful=faithful)
    assert found.shape == ()
    assert float(found) == pytest.approx(wanted, rel=1e-4, abs=1e-5)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(ESTIMATORS), st.booleans(), st.permutations(range(6)))
def test_the_order_of_images_does_not_matter(
    estimator: str, faithful: bool, order: list[int]
) -> None:
    local, whole = embeddings(6, 4)
    plain = estimate(local, whole, estimator=estimator, faithful=faithful)
    found = estimate(local[order], whole[order], estimator=estimator, faithful=faithful)
    torch.testing.assert_close(found, plain)


@settings(max_examples=30, deadline=None)
@given(st.floats(-30, 30), st.integers(2, 9), st.integers(1, 5))
def test_a_constant_added_to_all_scores_is_no_information(
    constant: float, n: int, places: int
) -> None:
    generator = torch.Generator().manual_seed(n)
    scores = torch.randn(n, n, places, generator=generator)
    for estimator in ("dv", "nce"):
        plain = of_scores(scores, estimator=estimator)
        found = of_scores(scores + constant, estimator=estimator)
        assert found == pytest.approx(plain, abs=1e-4)
    # Of each representation for `nce`, whose images are compared one by one.
    columns = scores + constant * torch.arange(n)[:, None]
    found = of_scores(columns, estimator="nce")
    assert found == pytest.approx(of_scores(scores, estimator="nce"), abs=1e-4)


def gaussian(n: int, correlation: float, *, scale: float = 1.0) -> tuple[Tensor, ...]:
    """Embeddings whose inner product is `scale` times the log of the ratio of the
    joint density of two correlated Gaussians and the product of theirs."""
    generator = torch.Generator().manual_seed(3)
    x, noise = torch.randn(2, n, generator=generator)
    rest = 1 - correlation**2
    z = correlation * x + math.sqrt(rest) * noise
    bend, one = correlation**2 / (2 * rest), torch.ones(n)
    level = -0.5 * math.log(rest) - bend * z.square()
    local = torch.stack([x, x.square(), one], dim=1)[..., None]
    whole = torch.stack([correlation / rest * z, -bend * one, level], dim=1)
    return local, scale * whole


@pytest.mark.parametrize("correlation", [0.3, 0.6, 0.9])
def test_the_true_ratio_of_gaussians_has_their_mutual_information(
    correlation: float,
) -> None:
    """And every other critic less: these are lower bounds."""
    truth = -0.5 * math.log(1 - correlation**2)
    for estimator in ("dv", "nce"):
        best = estimate(
            *gaussian(2000, correlation), estimator=estimator, faithful=False
        )
        assert float(best) == pytest.approx(truth, abs=0.08)
        for scale in (0.2, 2.5):
            other = estimate(
                *gaussian(2000, correlation, scale=scale),
                estimator=estimator,
                faithful=False,
            )
            assert float(other) < truth
            assert float(other) < float(best)


def test_jsd_is_largest_at_the_true_ratio_and_below_its_ceiling() -> None:
    def found(scale: float, correlation: float = 0.9) -> float:
        made = gaussian(2000, correlation, scale=scale)
        return float(estimate(*made, estimator="jsd", faithful=False))

    assert max(found(scale) for scale in (0.5, 0.8, 1.25, 2.0)) < found(1.0)
    rising = [found(1.0, correlation) for correlation in (0.0, 0.3, 0.6, 0.9, 0.999)]
    assert rising == sorted(rising)
    assert rising[0] == pytest.approx(0, abs=1e-6)
    assert rising[-1] < ceiling("jsd", 2000) == 2 * math.log(2)


@every_estimator
@pytest.mark.parametrize("n", [2, 8, 128])
def test_perfect_scores_reach_the_ceiling_and_none_passes_it(
    estimator: str, n: int
) -> None:
    perfect = 80 * torch.eye(n)[..., None] - 40
    found = of_scores(perfect, estimator=estimator)
    if estimator == "dv":
        assert ceiling(estimator, n) == math.inf
        assert found == pytest.approx(80, rel=1e-5)
    else:
        assert found == pytest.approx(ceiling(estimator, n), rel=1e-5)
    assert ceiling("nce", n) == math.log(n)


def test_the_released_dv_has_a_floor_at_minus_log_n_less_1() -> None:
    """The matching pairs' exp(0) among N(N - 1) exponentials: at N = 128 the second
    term is -4.84, whatever the scores are."""
    n = 128
    for level in (-9.48, -19.5):
        scores = torch.full((n, n, 1), level)
        scores[range(n), range(n)] = 3.0
        assert of_scores(scores, estimator="dv") == pytest.approx(3 - level, abs=1e-4)
        released = of_scores(scores, estimator="dv", faithful=True)
        assert released == pytest.approx(3 + 4.84, abs=0.01)
        mended = math.log(math.exp(level) + 1 / (n - 1))
        assert released == pytest.approx(3 - mended, abs=1e-4)


def test_the_released_nce_may_exceed_what_there_is_to_know() -> None:
    """Of N images, all of which are in the batch, nothing tells more than log N."""
    n, places = 4, 64
    scores = (80 * torch.eye(n)[..., None] - 40).expand(n, n, places)
    assert of_scores(scores, estimator="nce") == pytest.approx(math.log(n))
    released = of_scores(scores, estimator="nce", faithful=True)
    assert released == pytest.approx(math.log(3 * places + 1), abs=1e-3)


def test_the_released_nce_is_biased_by_low_scores() -> None:
    """-10 is no mask where the others' scores are lower."""
    scores = torch.full((4, 4, 1), -30.0)
    scores[range(4), range(4)] = -20.0
    assert of_scores(scores, estimator="nce") == pytest.approx(math.log(4), abs=1e-3)
    assert of_scores(scores, estimator="nce", faithful=True) < -8


@both_kinds
@every_estimator
def test_large_scores_do_not_overflow(estimator: str, faithful: bool) -> None:
    local, whole = embeddings(6, 3)
    local, whole = 3e3 * local.requires_grad_(), whole.requires_grad_()
    found = estimate(local, whole, estimator=estimator, faithful=faithful)
    assert bool(found.isfinite())
    for gradient in torch.autograd.grad(found, (local, whole)):
        assert bool(gradient.isfinite().all())
        assert float(gradient.abs().max()) > 0


@every_estimator
def test_it_is_computed_in_float32_under_autocast(estimator: str) -> None:
    local, whole = (t.bfloat16() for t in embeddings(6, 3))
    plain = estimate(local.float(), whole.float(), estimator=estimator, faithful=False)
    with torch.autocast("cpu", torch.bfloat16):
        found = estimate(local, whole, estimator=estimator, faithful=False)
    assert found.dtype == torch.float32
    assert torch.equal(found, plain)


@both_kinds
@every_estimator
def test_gradients_are_those_of_the_formula(estimator: str, faithful: bool) -> None:
    """By differences, along a direction of both embeddings."""
    parts = [t.requires_grad_() for t in embeddings(5, 3)]
    found = estimate(*parts, estimator=estimator, faithful=faithful)
    for number, gradient in enumerate(torch.autograd.grad(found, parts)):
        step = torch.randn(
            gradient.shape, generator=torch.Generator().manual_seed(number)
        )
        ends = []
        for sign in (1, -1):
            moved = [t.detach() for t in parts]
            moved[number] = moved[number] + sign * 1e-2 * step
            ends.append(estimate(*moved, estimator=estimator, faithful=faithful))
        slope = float(ends[0] - ends[1]) / 2e-2
        assert float((gradient * step).sum()) == pytest.approx(slope, abs=5e-3)


def share_of(n: int, estimator: str, faithful: bool) -> tuple[float, list[Tensor]]:
    """The estimate, and this worker's rows of its gradient, over the workers' number as
    averaging parameters' gradients makes it."""
    size = n // world_size()
    mine = slice(rank() * size, (rank() + 1) * size)
    parts = [t[mine].clone().requires_grad_() for t in embeddings(n, 3)]
    found = estimate(*parts, estimator=estimator, faithful=faithful)
    slopes = torch.autograd.grad(found, parts)
    return float(found.detach()), [slope / world_size() for slope in slopes]


@pytest.mark.slow
@both_kinds
@every_estimator
@pytest.mark.parametrize(("workers", "n"), [(2, 6), (4, 8), (4, 4)])
def test_workers_have_one_estimate_and_its_gradient(
    estimator: str, faithful: bool, workers: int, n: int
) -> None:
    """With one image each, too."""
    value, slopes = share_of(n, estimator, faithful)
    shares = run_workers(workers, share_of, n, estimator, faithful)
    for found, _ in shares:
        assert found == pytest.approx(value, rel=1e-5, abs=1e-6)
    for number, slope in enumerate(slopes):
        together = torch.cat([rows[number] for _, rows in shares])
        torch.testing.assert_close(together, slope, rtol=1e-4, atol=1e-6)


def test_an_estimator_that_is_none_is_refused_in_one_line() -> None:
    told = r"^there is no estimator=mine; choose dv\|nce\|jsd$"
    for asked in (
        lambda: estimate(*embeddings(4, 2), estimator="mine", faithful=False),
        lambda: ceiling("mine", 4),
    ):
        with pytest.raises(UserError, match=told):
            asked()


def test_one_image_alone_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"set train\.batch_size to at least 2$"):
        estimate(*embeddings(1, 2), estimator="nce", faithful=False)
