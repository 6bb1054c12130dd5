import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rrl_dist.core.columns import Columns
from rrl_dist.core.records import Row
from rrl_dist.evaluate.bound import bound_along, samples_at
from rrl_dist.evaluate.features import answers
from rrl_dist.evaluate.survey import head_norm
from rrl_dist.models.encoder import Classifier

ROW = Row(
    index=0,
    label=0,
    predicted=0,
    component="clean",
    correct=True,
    margin=0.0,
    confidence=1.0,
    loss=0.0,
    distance=0.0,
    displacement=0.0,
    queries=0,
    seed=0,
    seconds=0.0,
)

of = Columns.of_rows


def classifier(seed: int, *, scale: float, classes: int) -> Classifier:
    """A convolutional encoder and a head of any number of classes. Linear layers have
    inputs in fours: of others, rows round by their place on some processors."""
    generator = torch.Generator().manual_seed(seed)
    encoder = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(72, 8)
    )
    model = Classifier(encoder, nn.Linear(8, classes))
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    with torch.no_grad():
        model.head.weight.mul_(scale)
    return model


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    scale=st.sampled_from([0.0, 1e-3, 1.0, 30.0, 1e4]),
    reach=st.sampled_from([0.0, 1e-6, 1e-2, 1.0]),
    classes=st.integers(1, 6),
)
def test_no_image_whatever_has_a_loss_above_its_bound(
    seed: int, scale: float, reach: float, classes: int
) -> None:
    """Of a real classifier, sample by sample, to float64's last digits."""
    model = classifier(seed, scale=scale, classes=classes)
    generator = torch.Generator().manual_seed(seed)
    x, noise = torch.rand(2, 8, 3, 8, 8, generator=generator)
    moved = (x + reach * (noise - 0.5)).clamp(0, 1)
    y = torch.randint(classes, (8,), generator=generator)
    clean, attacked = (answers(model, images, y, size=8) for images in (x, moved))
    far = (attacked.features - clean.features).double().norm(dim=1)
    norm = head_norm(model)
    slack = clean.loss + math.sqrt(2) * norm * far - attacked.loss
    assert (slack >= -1e-9 * (1 + clean.loss)).all()
    rows = [replace(ROW, index=i, loss=float(v)) for i, v in enumerate(clean.loss)]
    after = [
        replace(ROW, index=i, loss=float(v), displacement=float(d))
        for i, (v, d) in enumerate(zip(attacked.loss, far, strict=True))
    ]
    found = samples_at(of(rows), [of(after)], head_norm=norm)
    assert found.displacement.tolist() == [row.displacement for row in after]
    pairs = zip(rows, after, strict=True)
    assert found.loss.tolist() == [max(row.loss, other.loss) for row, other in pairs]
    assert (found.loss <= found.bound + 1e-9 * (1 + found.bound)).all()


def test_the_bound_is_no_larger_than_it_must_be() -> None:
    """Far on the wrong side of two classes each step costs the whole slope."""
    model = Classifier(nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        model.head.weight.copy_(torch.tensor([[1.0], [-1.0]]))
        model.head.bias.copy_(torch.tensor([-20.0, 20.0]))
    x, y = torch.tensor([[[[1.0]]], [[[0.0]]]]), torch.tensor([0, 0])
    here, there = answers(model, x, y, size=2).loss.tolist()
    assert head_norm(model) == pytest.approx(math.sqrt(2))
    clean = of([replace(ROW, loss=here)])
    moved = of([replace(ROW, loss=there, displacement=1.0)])
    found = samples_at(clean, [moved], head_norm=head_norm(model))
    assert there - here == pytest.approx(2.0)
    assert found.bound.tolist() == [pytest.approx(there, rel=1e-9)]


def test_a_loss_above_its_bound_is_an_error_that_names_the_sample() -> None:
    clean = [replace(ROW, index=i, loss=0.1) for i in (4, 17)]
    attacked = [replace(row, loss=0.3, displacement=0.1) for row in clean]
    samples_at(of(clean), [of(attacked)], head_norm=2.0)
    attacked[1] = replace(attacked[1], loss=0.5)
    with pytest.raises(RuntimeError, match=r"sample 17: loss 0\.5 is above its bound"):
        samples_at(of(clean), [of(attacked)], head_norm=2.0)


def test_the_worst_is_taken_sample_by_sample_over_components() -> None:
    clean = [replace(ROW, index=i, loss=0.5) for i in range(2)]
    moved = [[1.0, 3.0], [2.0, 1.0]]
    losses = [[0.4, 0.6], [0.2, 0.3]]
    attacked = [
        [replace(ROW, index=i, loss=v[i], displacement=d[i]) for i in (1, 0)]
        for v, d in zip(losses, moved, strict=True)
    ]
    found = samples_at(of(clean), map(of, attacked), head_norm=1.0)
    assert found.displacement.tolist() == [2.0, 3.0]
    # The image itself is in the ball, too.
    assert found.loss.tolist() == [0.5, 0.6]
    assert found.bound[0] == pytest.approx(0.5 + math.sqrt(2) * 2)


def test_components_of_other_samples_have_no_bound() -> None:
    clean = of([replace(ROW, index=i) for i in range(2)])
    with pytest.raises(ValueError, match="different samples"):
        samples_at(clean, [of([ROW])], head_norm=1.0)


def test_a_collapsed_encoder_has_no_relative_displacement() -> None:
    groups = {"clean": of([ROW]), "pgd": of([ROW])}
    levels = [(0.1, ("pgd",))]
    (entry,) = bound_along(groups, levels, clean="clean", head_norm=1.0, spread=0.0)
    assert entry["relative_displacement"] is None
    assert entry["displacement"]["value"] == 0.0


def test_answers_are_a_forward_in_eval_mode() -> None:
    model = classifier(0, scale=1.0, classes=4)
    model.encoder.append(nn.BatchNorm1d(8))
    model.eval()
    model.encoder[-1].running_mean.fill_(0.3)
    x = torch.rand(9, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(9) % 4
    with torch.no_grad():
        h = model.encoder(x)
        expected = model(x), h, F.cross_entropy(model.head(h), y, reduction="none")
    model.train()
    before = model.encoder[-1].running_mean.clone()
    found = answers(model, x, y, size=32)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine.float(), theirs, atol=1e-5, rtol=1e-5)
    assert model.encoder[-1].training
    assert torch.equal(model.encoder[-1].running_mean, before)
    alone = answers(model, x[5:6], y[5:6], size=32)
    for mine, theirs in zip(alone, found, strict=True):
        assert torch.equal(mine[0], theirs[5])


def test_the_heads_norm_is_numpys() -> None:
    for classes in (1, 3, 20):
        model = classifier(1, scale=2.0, classes=classes)
        weight = model.head.weight.detach().double().numpy()
        assert head_norm(model) == pytest.approx(np.linalg.norm(weight, 2))
