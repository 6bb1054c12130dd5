"""A copy of a model that answers the same sooner, and when there is none."""

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from timm import create_model
from torch import Tensor, nn

from rrl_dist.attacks import FAB, Linf, autoattack
from rrl_dist.attacks.classifier import borrowed
from rrl_dist.attacks.folding import fold
from rrl_dist.attacks.twin import faster

CPU = torch.device("cpu")


def settled(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> nn.Module:
    """In eval mode, with statistics and weights that leave no batch norm neutral."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 2.0)
                nn.init.normal_(module.bias)
        for _ in range(3):
            model.train()(torch.rand(16, *shape))
    return model.eval()


def norms(model: nn.Module) -> int:
    return sum(isinstance(m, nn.BatchNorm2d) for m in model.modules())


@pytest.mark.parametrize(
    ("name", "size", "left"),
    # Those of MobileNet hold an activation, and stay.
    [
        ("resnet18", 64, 0),
        ("mobilenetv2_050", 64, 52),
        ("vit_tiny_patch16_224", 224, 0),
    ],
)
def test_networks_of_a_library_fold(name: str, size: int, left: int) -> None:
    model = settled(partial(create_model, name, num_classes=7), (3, size, size))
    x = torch.rand(4, 3, size, size, generator=torch.Generator().manual_seed(1))
    expected, twin = model(x), copy.deepcopy(model)
    assert fold(twin, x) == norms(model) - left
    assert norms(twin) == left
    torch.testing.assert_close(twin(x), expected, rtol=1e-4, atol=1e-5)
    found, off, scale = faster(model, x.shape, CPU)
    assert found is not model
    assert 0 <= off < 1e-4
    assert scale > 0
    torch.testing.assert_close(found(x), expected, rtol=1e-4, atol=1e-5)


class Preactivated(nn.Module):
    """A batch norm before its convolution has nothing to be folded into, one behind a
    convolution that is called twice neither, nor one of a shared output."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice, self.shared = (
            nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)
        )
        self.before, self.after, self.beside = (nn.BatchNorm2d(3) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(self.before(x))
        h = self.after(self.twice(self.twice(h)))
        out = self.shared(h)
        return (out + self.beside(out)).mean((2, 3))


def test_what_cannot_be_folded_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    model = settled(Preactivated, (3, 8, 8))
    x = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    twin = copy.deepcopy(model)
    assert fold(twin, x) == 1, "only the one that must not be"
    assert not torch.allclose(twin(x), model(x), atol=1e-3)
    assert faster(model, x.shape, CPU) == (model, 0.0, 0.0), (
        "held against the model itself"
    )


class Twice(nn.Module):
    """A convolution's output is used beside its batch norm, and what that changes is
    small beside what all logits have in common."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.head, self.offset = nn.Linear(8, 4), offset

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        h = (h.relu() + self.norm(h)).tanh().mean((2, 3))
        logits: Tensor = self.head(h) + self.offset
        return logits


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5, -1e6])
def test_an_offset_of_all_logits_hides_no_wrong_copy(offset: float) -> None:
    model = settled(partial(Twice, offset), (3, 8, 8))
    assert faster(model, torch.Size([16, 3, 8, 8]), CPU) == (model, 0.0, 0.0)


class Slopeless(nn.Module):
    """Its logits are sound, and its gradient is NaN."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x).mean((2, 3))
        return h + 0 * (h - h.detach()).sqrt()


def test_a_gradient_that_is_nan_is_no_small_difference() -> None:
    model = Slopeless().eval()
    assert model(torch.ones(2, 3, 8, 8)).isfinite().all()
    assert faster(model, torch.Size([16, 3, 8, 8]), CPU) == (model, 0.0, 0.0)


class Rowwise(nn.Module):
    """Refuses images whose channels lie last, inside."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.head = nn.Linear(8 * 36, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(x)
        logits: Tensor = self.head(h.view(len(h), -1))
        return logits


class Drawn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = Rowwise()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.body(x + 0.1 * torch.randn_like(x))
        return logits


class Uncopied(Rowwise):
    def __deepcopy__(self, memo: object) -> nn.Module:
        raise TypeError("there is one of me")


@pytest.mark.parametrize("kind", [Rowwise, Drawn, Uncopied])
def test_the_model_itself_is_called_where_no_copy_does(kind: type[nn.Module]) -> None:
    model = kind().eval()
    state = torch.random.get_rng_state()
    assert faster(model, torch.Size([16, 3, 8, 8]), CPU) == (model, 0.0, 0.0)
    assert torch.equal(torch.random.get_rng_state(), state)
    x = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    y = model(x).argmax(1)
    attack = FAB(
        ball=Linf(0.3),
        steps=3,
        restarts=1,
        targets=2,
        alpha_max=0.1,
        eta=1.05,
        beta=0.9,
        seed=0,
        micro_batch=16,
    )
    assert attack(model, x, y).shape == x.shape


def test_half_precision_and_other_devices_keep_their_model() -> None:
    model = settled(partial(create_model, "resnet10t", num_classes=7), (3, 32, 32))
    shape = torch.Size([4, 3, 32, 32])
    assert faster(model, shape, torch.device("meta"))[0] is model
    assert faster(model, torch.Size([4, 3072]), CPU)[0] is model
    mixed = nn.Sequential(nn.Flatten(), nn.Linear(3072, 4)).eval()
    assert faster(mixed, shape, CPU)[0] is mixed


class Edge(nn.Module):
    """Wrong by less than a copy can tell, and wrong or right clearly."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        margin = 10 * x.flatten(1)[:, 0] + 0 * self.conv(x).flatten(1).sum(1)
        return torch.stack([torch.ones_like(margin), 1 + margin], 1)


def test_where_rounding_could_turn_an_answer_the_model_itself_is_asked() -> None:
    model, y = Edge().eval(), torch.zeros(4, dtype=torch.int64)
    x = torch.tensor([5e-7, -5e-7, 0.1, -0.1]).reshape(4, 1, 1, 1)
    with borrowed(model, 4) as classifier:
        copied = classifier.sooner(x)
        assert copied is not classifier
        before = model.calls
        far = copied.wrong(x, torch.tensor([[0.0, 1.0], [1.0, 0.0]] * 2), y)
        assert far.tolist() == [True, False, True, False]
        assert model.calls == before, "nothing is in doubt"
        near = torch.tensor([[1.0, 1.0 - 1e-7], [1.0, 1.0 + 2e-7], [1.0, 0.0], [1, 2]])
        assert copied.wrong(x, near, y).tolist() == [True, False, False, True]
        assert model.calls == before + 1


def test_the_model_comes_back_as_it_was(
    trained: nn.Module, unseen: tuple[Tensor, Tensor]
) -> None:
    model = copy.deepcopy(trained).train()
    before = copy.deepcopy(model.state_dict())
    layers = [type(layer) for layer in model.modules()]
    x, y = (column[:16] for column in unseen)
    with pytest.warns(UserWarning, match="the model is in train mode"):
        autoattack(model, x, y, ball=Linf(0.3))
    assert [type(layer) for layer in model.modules()] == layers
    assert all(layer.training for layer in model.modules())
    assert all(p.requires_grad for p in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
        assert value.is_contiguous()
