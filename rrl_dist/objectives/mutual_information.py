"""Estimates of the mutual information of images and representations, in nats.

Between the places of an image, x_l, and the representation z of the whole image, after
Hjelm et al., Learning deep representations by mutual information estimation and
maximization, ICLR 2019, arXiv:1808.06670. The score of a place and a representation is
the inner product u of their embeddings. Matching pairs, of one image, are draws of the
joint distribution, pairs of two images of the batch draws of the product. Each place
has an estimate of its own, and the mean over places is given back:

    dv    mean of u over matches - log of the mean of exp(u) over the other pairs
          (Donsker and Varadhan; Belghazi et al. 2018, arXiv:1801.04062)
    nce   log N + mean over matches of the log-softmax of u over the N images
          (van den Oord et al. 2018, arXiv:1807.03748)
    jsd   mean of log 2 - softplus(-u) over matches
          - mean of softplus(u) - log 2 over the other pairs: twice the Jensen-Shannon
          divergence of joint and product at most, which grows with the mutual
          information and is not one (Nowozin et al. 2016, arXiv:1606.00709)

With better embeddings `nce` comes nearer to the mutual information from below, in
expectation, up to log N. So does `dv` for enough pairs; of few pairs the log of a mean
is too small in expectation, and the estimate too large. No estimate that is a lower
bound with high confidence, whatever the distribution, exceeds about log N: McAllester
and Stratos 2020, arXiv:1811.04251. So log N belongs beside every figure.

`faithful` is what schzhu/learning-adversarially-robust-representations computes
(functions/dim_losses.py). Its `dv` takes matching scores out of the second term by
multiplying them by 0 before the exponential, so that N of N^2 terms are exp(0), and
that term stays above -log(N - 1). Its `nce` compares a match with all places of the
other images, and with scores of -10 for the L of its own image; the estimate, log of
the number of other places and one less its loss, may exceed the mutual information,
since the places of one image are not independent draws. Its `jsd` is the one above.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from rrl_dist.core.collectives import all_gather, all_mean, all_sum, rank
from rrl_dist.core.errors import UserError

_LEFT_OUT = -10.0  # the score that the released `nce` gives pairs it leaves out


def estimate(local: Tensor, whole: Tensor, *, estimator: str, faithful: bool) -> Tensor:
    """Mutual information of places and representations, over the global batch.

    Args:
        local: [N, E, L] on each worker, embeddings of L places of each image.
        whole: [N, E], embeddings of the same images' representations.
        estimator: "dv", "nce" or "jsd".
        faithful: whether to mask as the released code does; see above.

    Returns:
        scalar in nats, float32 under any autocast, the same on every worker, with
        gradients into both. It may be negative.

    Raises:
        UserError: there is no such estimator, or one image in the global batch.
    """
    check_estimator(estimator)
    whole = all_gather(whole.float())
    if len(whole) < 2:
        raise UserError(
            "mutual information compares images, and the batch has 1; set "
            "train.batch_size to at least 2"
        )
    # Exponentials of scores: bf16 has steps of 0.5 already at 64.
    with torch.autocast(local.device.type, enabled=False):
        scores = torch.einsum("iel,je->ijl", local.float(), whole)  # [N, WN, L]
    return _ESTIMATORS[estimator](scores, faithful)


def ceiling(estimator: str, batch: int) -> float:
    """What an estimate from `batch` images, not `faithful`, never exceeds, in nats.

    log N for "nce" and 2 log 2 for "jsd". Infinite for "dv", which is no reason to
    believe it beyond log N: see above.

    Raises:
        UserError: there is no such estimator.
    """
    check_estimator(estimator)
    if estimator == "nce":
        return math.log(batch)
    return 2 * math.log(2) if estimator == "jsd" else math.inf


def check_estimator(name: str) -> None:
    """Raises `UserError` for a name of none."""
    if name not in _ESTIMATORS:
        options = "|".join(_ESTIMATORS)
        raise UserError(f"there is no estimator={name}; choose {options}")


def _donsker_varadhan(scores: Tensor, faithful: bool) -> Tensor:
    own = _own(scores)
    others = scores.masked_fill(own, 0.0 if faithful else -torch.inf)
    total = scores.shape[1]
    log_sum = _over_workers(torch.logsumexp(others, (0, 1)))  # [L]
    away = log_sum.mean() - math.log(total * (total - 1))
    return all_mean(_matching(scores, own).mean()) - away


def _info_nce(scores: Tensor, faithful: bool) -> Tensor:
    own, total = _own(scores), scores.shape[1]
    match = _matching(scores, own)  # [N, L]
    if faithful:
        return _info_nce_of_all_places(scores, own, match)
    candidates = _over_workers(torch.logsumexp(scores, 0))  # [WN, L]: all local to one
    return math.log(total) + all_mean(match.mean()) - candidates.mean()


def _info_nce_of_all_places(scores: Tensor, own: Tensor, match: Tensor) -> Tensor:
    total, places = scores.shape[1:]
    others = scores.masked_fill(own, _LEFT_OUT)
    log_sum = _over_workers(torch.logsumexp(others, (0, 2)))  # [WN]
    mine = log_sum[_columns(scores)][:, None]
    loss = all_mean((torch.logaddexp(match, mine) - match).mean())
    return math.log((total - 1) * places + 1) - loss


def _jensen_shannon(scores: Tensor, faithful: bool) -> Tensor:
    own, total = _own(scores), scores.shape[1]
    near = all_mean((math.log(2) - F.softplus(-_matching(scores, own))).mean())
    away = (F.softplus(scores) - math.log(2)).masked_fill(own, 0)
    pairs = total * (total - 1) * scores.shape[2]
    return near - all_sum(away.sum()) / pairs


_ESTIMATORS: dict[str, Callable[[Tensor, bool], Tensor]] = {
    "dv": _donsker_varadhan,
    "nce": _info_nce,
    "jsd": _jensen_shannon,
}


def _columns(scores: Tensor) -> Tensor:
    """[N] places of this worker's images in the global batch."""
    n = len(scores)
    return rank() * n + torch.arange(n, device=scores.device)


def _own(scores: Tensor) -> Tensor:
    """[N, WN, 1], true where both are of one image."""
    every = torch.arange(scores.shape[1], device=scores.device)
    return (_columns(scores)[:, None] == every)[..., None]


def _matching(scores: Tensor, own: Tensor) -> Tensor:
    """Scores of matching pairs, [N, L]."""
    return scores[own.squeeze(2)]


def _over_workers(log_sums: Tensor) -> Tensor:
    """The log-sum-exp of all workers' log-sum-exps, of the same shape."""
    return torch.logsumexp(all_gather(log_sums[None]), 0)
