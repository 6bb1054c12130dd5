import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrl_dist.data.split import stratified

labellings = st.lists(st.integers(-1, 4), min_size=1, max_size=80).map(np.array)


@given(labellings, st.floats(0.01, 0.99))
def test_each_class_gives_its_share_and_keeps_one(labels, fraction):
    chosen = stratified(labels, fraction=fraction, key=("a",))
    assert not chosen[labels < 0].any()
    for label in set(labels[labels >= 0].tolist()):
        count = int((labels == label).sum())
        taken = int(chosen[labels == label].sum())
        assert abs(taken - fraction * count) <= 1
        assert taken < count
        assert taken >= min(1, count - 1)


@given(labellings)
def test_a_class_is_cut_without_regard_to_the_others(labels):
    whole = stratified(labels, fraction=0.3, key=("a",))
    for label in range(5):
        alone = np.where(labels == label, labels, -1)
        cut = stratified(alone, fraction=0.3, key=("a",))
        np.testing.assert_array_equal(cut, whole & (labels == label))


def test_other_keys_cut_elsewhere():
    labels = np.zeros(100, dtype=np.int64)
    first = stratified(labels, fraction=0.5, key=("a",))
    assert (first == stratified(labels, fraction=0.5, key=("a",))).all()
    assert (first != stratified(labels, fraction=0.5, key=("b",))).any()


def test_nothing_is_chosen_at_fraction_zero():
    assert not stratified(np.zeros(9, dtype=np.int64), fraction=0, key=()).any()


@pytest.mark.parametrize(
    ("fraction", "digest"), [(0.1, "fa3c5af22a58ac01"), (0.5, "6fc0704ff9737f90")]
)
def test_the_cut_never_changes(fraction, digest):
    labels = np.arange(1000, dtype=np.int64) % 7
    chosen = stratified(labels, fraction=fraction, key=("pinned",))
    found = hashlib.sha256(np.flatnonzero(chosen).astype("<i8").tobytes()).hexdigest()
    assert found.startswith(digest)
