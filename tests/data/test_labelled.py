"""A part of the labels: as much of each class, the smaller within the larger."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrl_dist.core.errors import UserError
from rrl_dist.data.split import labelled
from rrl_dist.training.build import build
from tests.training.stages import composed

labellings = st.lists(st.integers(0, 4), min_size=1, max_size=80).map(np.array)
shares = st.floats(0.001, 1.0)


def chosen(labels, fraction, index=None, key=("a",)):
    index = np.arange(len(labels)) + 7 if index is None else index
    return labelled(labels, index, fraction=fraction, key=key)


@given(labellings, shares)
def test_each_class_gives_its_share_and_at_least_one(labels, fraction):
    taken = labels[chosen(labels, fraction)]
    for label in set(labels.tolist()):
        own, count = (labels == label).sum(), (taken == label).sum()
        assert count >= 1
        assert count == 1 or abs(count - fraction * own) <= 0.5 + 1e-9


@given(labellings, shares, shares)
def test_the_smaller_lies_within_the_larger(labels, one, other):
    small, large = sorted((one, other))
    assert set(chosen(labels, small)) <= set(chosen(labels, large))


@given(labellings, shares, st.randoms())
def test_neither_order_nor_other_classes_matter(labels, fraction, random):
    index = np.arange(len(labels)) + 7
    found = set(index[chosen(labels, fraction, index)])
    order = np.array(random.sample(range(len(labels)), len(labels)))
    moved = chosen(labels[order], fraction, index[order])
    assert set(index[order][moved]) == found
    own = np.flatnonzero(labels == labels[0])
    alone = index[own][chosen(labels[own], fraction, index[own])]
    assert set(alone) == {i for i in found if labels[i - 7] == labels[0]}


def test_all_of_the_labels_are_all_images_and_none_without_a_label():
    labels = np.array([0, 1, -1, 1, 0])
    assert chosen(labels, 1.0).tolist() == [0, 1, 3, 4]
    many = np.zeros(100, dtype=np.int64)
    assert set(chosen(many, 0.5)) != set(chosen(many, 0.5, key=("b",)))


def test_a_data_set_gives_them_as_a_split():
    source = build(composed()["data"])
    train, tenth, few = (source.split(s) for s in ("train", "train@0.1", "train@0.01"))
    assert set(few.index) < set(tenth.index) < set(train.index)
    assert len({train.fingerprint, tenth.fingerprint, few.fingerprint}) == 3
    assert np.bincount(few.labels, minlength=10).min() >= 1
    share = np.bincount(tenth.labels) / np.bincount(train.labels)
    assert np.abs(share - 0.1).max() < 0.005
    places = np.searchsorted(train.index, tenth.index)
    np.testing.assert_array_equal(tenth.images, train.images[places])
    for odd in ("train@", "train@0", "train@1.5", "train@x", "train@nan"):
        with pytest.raises(UserError, match="give one in"):
            source.split(odd)
