from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate
from omegaconf import OmegaConf
from sklearn.datasets import load_digits

from rrl_dist.core.errors import UserError
from rrl_dist.data.datasets import DataSource, ImageSet
from rrl_dist.data.sources import SOURCES

CONFIGS = Path(__file__).parents[2] / "configs" / "data"
FILES = sorted(CONFIGS.glob("*.yaml"))


def configured(name: str, **changes: object) -> DataSource:
    config = OmegaConf.to_container(OmegaConf.load(CONFIGS / f"{name}.yaml"))
    return instantiate(config, _convert_="all", **changes)


@pytest.fixture(scope="module")
def digits() -> DataSource:
    return configured("digits")


def test_every_config_builds_a_source_and_every_source_has_one():
    assert {configured(file.stem).name for file in FILES} == set(SOURCES)


def test_every_config_passes_the_check_of_its_numbers(tmp_path):
    for file in FILES:
        source = configured(file.stem)
        if source.root is not None:
            with pytest.raises(UserError, match=r"data\.root"):
                replace(source, root=str(tmp_path / "none")).check()


def test_digits_splits_are_disjoint_and_cover_the_set(digits):
    parts = [digits.split(name) for name in ("train", "val", "test")]
    index = np.concatenate([part.index for part in parts])
    np.testing.assert_array_equal(np.sort(index), np.arange(1797))
    labels = load_digits().target
    for part in parts:
        np.testing.assert_array_equal(part.labels, labels[part.index])
        shares = np.bincount(part.labels) / np.bincount(labels)
        assert shares.max() - shares.min() < 0.02


def test_digits_are_enlarged_without_losing_grey_levels(digits):
    test = digits.split("test")
    assert test.images.shape == (len(test), 32, 32, 3)
    stored = load_digits().images[test.index] * 255 / 16
    blocks = test.images[..., 0].reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4))
    assert np.abs(blocks - stored).mean() < 25
    assert np.corrcoef(blocks.ravel(), stored.ravel())[0, 1] > 0.97
    assert (test.images == test.images[..., :1]).all()


def test_config_of_digits_states_the_training_split(digits):
    pixels = digits.split("train").images / 255
    np.testing.assert_allclose(pixels.mean((0, 1, 2)), digits.mean, atol=1e-4)
    np.testing.assert_allclose(pixels.std((0, 1, 2)), digits.std, atol=1e-4)


def test_pretrain_is_train_where_nothing_is_unlabelled(digits):
    train, pretrain = digits.split("train"), digits.split("pretrain")
    np.testing.assert_array_equal(train.index, pretrain.index)


def test_classes_are_relabelled_in_the_order_given(digits):
    chosen = replace(digits, classes=["7", 2])
    for name in ("train", "val", "test"):
        whole, kept = digits.split(name), chosen.split(name)
        assert kept.classes == ("7", "2")
        assert chosen.num_classes == 2
        expected = whole.select(np.flatnonzero(np.isin(whole.labels, [7, 2])))
        np.testing.assert_array_equal(kept.index, expected.index)
        np.testing.assert_array_equal(np.array([7, 2])[kept.labels], expected.labels)
        np.testing.assert_array_equal(kept.images, expected.images)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "digit"}, "did you mean 'digits'"),
        ({"classes": ["11"]}, r"no class '11' in data\.classes; did you mean '1'"),
        ({"classes": ["cat"]}, "choose from 0, 1"),
        ({"classes": [12]}, "places from 0 to 9"),
        ({"classes": [3, "3"]}, "twice"),
        ({"classes": []}, "set it to null"),
        ({"size": 0}, r"data\.size=0"),
        ({"val_fraction": 1.0}, r"set it in \[0, 1\)"),
        ({"on_error": "ignore"}, "'fail' or 'skip'"),
        ({"std": [1, 0, 1]}, "above 0"),
    ],
)
def test_check_names_the_mistake_in_one_line(digits, change, message):
    with pytest.raises(UserError, match=message) as caught:
        replace(digits, **change).check()
    assert "\n" not in str(caught.value)


def test_check_passes_and_an_empty_or_unknown_split_is_refused(digits):
    digits.check()
    with pytest.raises(UserError, match="digits-val has no images"):
        replace(digits, val_fraction=0.0).split("val")
    with pytest.raises(UserError, match="choose one of train"):
        digits.split("dev")


def small_set() -> ImageSet:
    images = np.arange(4 * 2 * 2 * 3, dtype=np.uint8).reshape(4, 2, 2, 3)
    labels = np.array([0, 1, 0, 1])
    return ImageSet("s-train", images, labels, np.array([5, 9, 2, 7]), ("a", "b"))


def test_select_keeps_each_sample_whole():
    chosen = small_set().select([2, 0])
    np.testing.assert_array_equal(chosen.index, [2, 5])
    np.testing.assert_array_equal(chosen.images, small_set().images[[2, 0]])


def test_fingerprint_changes_with_any_content_and_with_nothing_else():
    base = small_set()
    assert base.fingerprint == small_set().select(range(4)).fingerprint
    pixels = base.images.copy()
    pixels[3, 1, 1, 2] ^= 1
    others = [
        replace(base, images=pixels),
        replace(base, labels=np.array([0, 1, 0, 0])),
        replace(base, index=np.array([5, 9, 2, 8])),
        replace(base, classes=("a", "c")),
        replace(base, name="s-test"),
        base.select([0, 1, 2]),
        base.select([1, 0, 2, 3]),
    ]
    prints = {other.fingerprint for other in others} | {base.fingerprint}
    assert len(prints) == len(others) + 1


def test_a_train_fraction_is_fixed_nested_and_leaves_val_as_it_is() -> None:
    def index(fraction: float, split: str) -> set[int]:
        source = configured("digits", train_fraction=fraction)
        return set(source.split(split).index.tolist())

    assert index(0.1, "train") < index(0.5, "train") < index(1.0, "train")
    assert index(0.1, "val") == index(1.0, "val")
    assert index(0.1, "test") == index(1.0, "test")
    whole = len(index(1.0, "train"))
    assert len(index(0.5, "train")) == pytest.approx(whole / 2, rel=0.05)
    for bad in (0.0, 1.5):
        with pytest.raises(UserError, match="train_fraction"):
            configured("digits", train_fraction=bad).check()
