import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from rrl_dist.attacks.balls import Linf
from rrl_dist.attacks.projected_gradient import PGD
from rrl_dist.core.modes import evaluating
from rrl_dist.data.datasets import DataSource
from rrl_dist.training.build import build
from rrl_dist.training.probe import (
    Probe,
    features,
    fit_linear,
    fixed_subset,
    knn_predict,
)
from tests.objectives.harness import small_encoder
from tests.training.stages import composed

CPU = torch.device("cpu")


def literal_knn(
    bank: Tensor, labels: Tensor, query: Tensor, k: int, temperature: float
) -> set[int]:
    """Votes of the k nearest by cosine, one at a time; the classes that may win."""
    found = []
    for known, label in zip(bank.double(), labels.tolist(), strict=True):
        cosine = float(known @ query.double() / known.norm() / query.double().norm())
        found.append((cosine, label))
    votes: dict[int, float] = {}
    for cosine, label in sorted(found, reverse=True)[:k]:
        votes[label] = votes.get(label, 0.0) + math.exp(cosine / temperature)
    best = max(votes.values())
    return {label for label, vote in votes.items() if vote > best * (1 - 1e-4)}


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 999),
    size=st.integers(1, 20),
    k=st.integers(1, 30),
    temperature=st.sampled_from([0.07, 0.5, 3.0]),
)
def test_knn_equals_a_loop(seed: int, size: int, k: int, temperature: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    bank = torch.randn(size, 4, generator=generator) * 3
    queries = torch.randn(6, 4, generator=generator)
    labels = torch.randint(0, 4, (size,), generator=generator)
    found = knn_predict(bank, labels, queries, k=k, temperature=temperature)
    for query, guess in zip(queries, found.tolist(), strict=True):
        assert guess in literal_knn(bank, labels, query, k, temperature)


@pytest.fixture(scope="module")
def digits() -> tuple[Tensor, Tensor]:
    """Pixels as features; the borders are the same in all images."""
    data = load_digits()
    return torch.tensor(data.data, dtype=torch.float32), torch.tensor(data.target)


@pytest.mark.parametrize("decay", [1e-4, 1e-2])
def test_linear_head_is_as_good_as_sklearns(digits, decay: float) -> None:
    h, labels = digits
    train, test = slice(0, 1200), slice(1200, None)
    head = fit_linear(h[train], labels[train], num_classes=10, decay=decay)
    scaler = StandardScaler().fit(h[train])
    # sklearn minimizes |w|^2 / 2 + C * sum of losses.
    model = LogisticRegression(C=1 / (2 * decay * 1200), max_iter=2000, tol=1e-6)
    model.fit(scaler.transform(h[train]), labels[train])
    theirs = torch.tensor(model.decision_function(scaler.transform(h)))
    weights = head.weight.double() * torch.tensor(scaler.scale_)

    def objective(logits: Tensor, weight: Tensor) -> float:
        loss = nn.functional.cross_entropy(logits[train].double(), labels[train])
        return float(loss + decay * weight.square().sum())

    best = objective(theirs, torch.tensor(model.coef_))
    constant = h[train].std(0) < 1e-6  # sklearn leaves those as they are
    assert bool(constant.any())
    reached = objective(head(h), weights[:, ~constant])
    assert reached <= best * 1.05 + 1e-4
    right = [
        float((logits.argmax(1) == labels)[test].double().mean())
        for logits in (head(h), theirs)
    ]
    assert right[0] > 0.87
    assert right[0] >= right[1] - 0.01
    assert not any(p.requires_grad for p in head.parameters())


def test_a_stronger_decay_gives_a_smaller_head(digits) -> None:
    h, labels = digits
    sizes = [
        float(fit_linear(h, labels, num_classes=10, decay=decay).weight.norm())
        for decay in (1e-3, 1e-1, 10.0)
    ]
    assert sizes[0] > 2 * sizes[1] > 4 * sizes[2]


@pytest.fixture(scope="module")
def source() -> DataSource:
    made: DataSource = build(composed()["data"])
    return made


def probe_of(source: DataSource, *, eps: float = 0.1, **changes: int) -> Probe:
    attack = PGD(
        ball=Linf(eps),
        steps=3,
        relative_step=0.5,
        restarts=1,
        random_start=True,
        seed=0,
        micro_batch=32,
    )
    options = {"bank_images": 300, "val_images": 100, "robust_images": 100, **changes}
    return Probe(
        train=source.split("train"),
        val=source.split("val"),
        num_classes=10,
        attack=attack,
        k=10,
        temperature=0.07,
        decay=1e-3,
        **options,
    )


def test_a_probe_leaves_the_encoder_as_it_was(source: DataSource) -> None:
    encoder = small_encoder(0, sync_bn=False).train()
    encoder(torch.rand(64, 3, 8, 8))
    encoder.backbone.layers[1].eval()
    encoder.backbone.layers[3].weight.requires_grad_(False)
    first_weight = encoder.backbone.layers[0].weight
    first_weight.grad = torch.ones_like(first_weight)
    probe = probe_of(source)
    modes = [m.training for m in encoder.modules()]
    trained = [p.requires_grad for p in encoder.parameters()]
    gradients = [p.grad for p in encoder.parameters()]
    state = {name: value.clone() for name, value in encoder.state_dict().items()}
    first = probe(encoder, CPU)
    assert [m.training for m in encoder.modules()] == modes
    assert [p.requires_grad for p in encoder.parameters()] == trained
    after = [p.grad for p in encoder.parameters()]
    assert all(a is b for a, b in zip(gradients, after, strict=True))
    for name, value in encoder.state_dict().items():
        assert torch.equal(value, state[name]), name
    assert probe(encoder, CPU) == first


def test_an_attack_never_helps(source: DataSource) -> None:
    encoder = small_encoder(0, sync_bn=False)
    images = torch.from_numpy(source.split("train").images[:128])
    with torch.no_grad():
        for _ in range(20):
            encoder(images.permute(0, 3, 1, 2).float() / 255)
    found = probe_of(source)(encoder, CPU)
    assert found["linear_acc"] > 0.5
    assert found["knn_acc"] > 0.5
    assert found["robust_acc"] < found["linear_acc"]
    assert found["robust_low"] <= found["robust_acc"] <= found["robust_high"]
    assert found["feature_std"] > 0
    harmless = probe_of(source, eps=0.0)(encoder, CPU)
    assert harmless["linear_acc"] == found["linear_acc"]
    assert harmless["robust_acc"] == pytest.approx(found["linear_acc"])
    part = probe_of(source, robust_images=10)(encoder, CPU)
    assert part["robust_acc"] in [right / 10 for right in range(11)]


def test_the_samples_of_a_probe_are_always_the_same(source: DataSource) -> None:
    train = source.split("train")
    images, labels, index = fixed_subset(train, 50)
    again = fixed_subset(train, 50)
    for one, other in zip((images, labels, index), again, strict=True):
        assert torch.equal(one, other)
    assert len(set(index.tolist())) == 50
    places = {int(i): place for place, i in enumerate(train.index)}
    for image, label, i in zip(images, labels, index.tolist(), strict=True):
        place = places[i]
        assert np.array_equal(image.permute(1, 2, 0).numpy(), train.images[place])
        assert int(label) == train.labels[place]
    assert len(fixed_subset(train, 10**6)[1]) == len(train)


def test_features_do_not_depend_on_how_images_are_batched() -> None:
    encoder = small_encoder(0, sync_bn=False).train()
    images = torch.randint(0, 256, (10, 3, 8, 8), dtype=torch.uint8)
    whole = features(encoder, images, device=CPU)
    parts = features(encoder, images, device=CPU, batch_size=3)
    torch.testing.assert_close(whole, parts, rtol=1e-5, atol=1e-6)
    with torch.no_grad(), evaluating(encoder):
        torch.testing.assert_close(whole, encoder(images.float() / 255))
    assert not whole.requires_grad
