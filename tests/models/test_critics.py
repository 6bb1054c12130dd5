"""Critics: shapes, the layers written out, and where an embedding looks."""

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rrl_dist.core.errors import UserError
from rrl_dist.models.critics import GlobalCritic, LocalCritic
from rrl_dist.models.sync_bn import SyncBatchNorm

MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.2, 0.3]
local = partial(
    LocalCritic, width=4, embedding=10, grid=8, mean=MEAN, std=STD, sync_bn=False
)
whole = partial(GlobalCritic, 6, embedding=10, sync_bn=False)


def images(size: int, n: int = 5) -> Tensor:
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(size))


@pytest.mark.parametrize(
    ("size", "places"),
    [(4, 1), (7, 1), (8, 4), (16, 16), (28, 49), (32, 64), (224, 64)],
)
def test_an_image_has_a_place_for_each_four_pixels_at_most_a_grid(
    size: int, places: int
) -> None:
    assert local()(images(size)).shape == (5, 10, places)


def test_an_image_that_is_not_square_has_its_own_grid() -> None:
    x = torch.rand(3, 3, 16, 64)
    assert local()(x).shape == (3, 10, 4 * 8)
    assert local(grid=2)(x).shape == (3, 10, 4)


def test_a_place_is_where_the_image_has_it_in_rows() -> None:
    critic = local().eval()
    x = images(32)
    changed = x.clone()
    changed[:, :, 8:12, 20:24] += 0.5  # the place in row 2 and column 5
    with torch.no_grad():
        moved = (critic(changed) - critic(x)).abs().amax((0, 1)).view(8, 8)
    assert float(moved[2, 5]) > 0.01
    rows, columns = moved.nonzero().unbind(1)
    assert set(rows.tolist()) <= {1, 2, 3}
    assert set(columns.tolist()) <= {4, 5, 6}


def embedded(h: Tensor, state: dict[str, Any]) -> Tensor:
    """h: [N, C, L] -> [N, E, L], by matrices and batch statistics."""
    first, last = state["block.0.weight"][..., 0], state["block.3.weight"][..., 0]
    inside = torch.einsum("ec,ncl->nel", first, h)
    mean = inside.mean((0, 2), keepdim=True)
    var = (inside - mean).square().mean((0, 2), keepdim=True)
    inside = ((inside - mean) / (var + 1e-5).sqrt()).clamp_min(0)
    e = torch.einsum("ec,ncl->nel", last, inside) + state["block.3.bias"][:, None]
    e = e + torch.einsum("ec,ncl->nel", state["shortcut.weight"][..., 0], h)
    e = e - e.mean(1, keepdim=True)
    spread = (e.square().mean(1, keepdim=True) + 1e-5).sqrt()
    return torch.as_tensor(e / spread)


def under(prefix: str, state: dict[str, Any]) -> dict[str, Any]:
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


@pytest.mark.parametrize(("size", "grid"), [(32, 8), (16, 8), (32, 2)])
def test_the_local_critic_is_the_papers(size: int, grid: int) -> None:
    torch.manual_seed(0)
    critic, x = local(grid=grid), images(size)
    state = critic.state_dict()
    h = (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    for number in (0, 3):
        h = F.conv2d(h, state[f"layers.{number}.weight"], stride=2, padding=1)
        h = F.batch_norm(h, None, None, training=True).clamp_min(0)
    if h.shape[2] > grid:
        part = h.shape[2] // grid
        h = h.unfold(2, part, part).unfold(3, part, part).mean((4, 5))
    expected = embedded(h.flatten(2), under("embed.", state))
    torch.testing.assert_close(critic(x), expected, rtol=1e-4, atol=1e-5)


def test_the_global_critic_is_the_same_block() -> None:
    torch.manual_seed(0)
    critic, h = whole(), torch.randn(7, 6)
    found = critic(h)
    expected = embedded(h[..., None], under("embed.", critic.state_dict()))
    torch.testing.assert_close(found, expected[..., 0], rtol=1e-4, atol=1e-5)


def test_the_shortcut_begins_as_a_noisy_copy() -> None:
    for features, embedding in ((6, 10), (10, 6)):
        critic = GlobalCritic(features, embedding=embedding, sync_bn=False)
        weight = critic.state_dict()["embed.shortcut.weight"][..., 0]
        eye = torch.eye(embedding, features)
        noise = (weight - eye)[eye == 0]
        assert torch.equal(weight[eye == 1], torch.ones(6))
        assert float(noise.abs().max()) <= 0.01
        assert float(noise.std()) > 0.004


def test_the_released_codes_sizes() -> None:
    """Its critics at an embedding of 2048 and an encoder of 64 features."""
    with torch.device("meta"):
        critic = local(width=64, embedding=2048)
        other = GlobalCritic(64, embedding=2048, sync_bn=True)
    convolutions = 3 * 16 * 64 + 2 * 64 + 64 * 16 * 128 + 2 * 128

    def block(channels: int) -> int:
        # Two layers, batch norm, a bias, the shortcut, layer norm.
        return 2 * channels * 2048 + 2048**2 + 5 * 2048

    assert sum(p.numel() for p in critic.parameters()) == convolutions + block(128)
    assert sum(p.numel() for p in other.parameters()) == block(64)


@pytest.mark.parametrize("made", [local, whole])
def test_batch_norms_are_over_all_workers_if_asked(made: Any) -> None:
    for sync_bn in (True, False):
        norms = [m for m in made(sync_bn=sync_bn).modules() if "Norm" in str(type(m))]
        kinds = {isinstance(m, SyncBatchNorm) for m in norms if hasattr(m, "momentum")}
        assert kinds == {sync_bn}


@pytest.mark.parametrize("size", ["width", "embedding", "grid"])
def test_sizes_below_one_are_refused(size: str) -> None:
    none: dict[str, Any] = {size: 0}
    with pytest.raises(UserError, match=f"^a critic has {size}=0; set at least 1$"):
        local(**none)
    with pytest.raises(UserError, match="a critic has embedding=0"):
        whole(embedding=0)


def test_images_too_small_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^images of 3x3 px have no places"):
        local()(images(3))
