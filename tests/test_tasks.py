"""The data set cut into tasks, and what a person can get wrong about them."""

from typing import Any

import numpy as np
import pytest

from rrl_dist.core.errors import UserError
from rrl_dist.tasks import Images, Part, attacked_split, cut_tasks
from tests.training.stages import composed

SEEN = [0, 1, 2, 3, 4, 5]


def config(tasks: Any, *overrides: str) -> dict[str, Any]:
    return {**composed(*overrides), "tasks": tasks}


def test_without_tasks_there_is_no_part() -> None:
    assert cut_tasks(composed()) == ()
    whole = Part(None, composed()["data"])
    assert whole.entry("simclr") == "simclr"
    assert whole.read().keys() == {"train", "val", "test", "pretrain"}


def test_test_images_are_not_read_where_others_are_attacked() -> None:
    given = config({"seen": SEEN})
    (seen,), whole = cut_tasks(given), Part(None, given["data"])
    assert whole.read(attacked="val").keys() == {"train", "val", "pretrain"}
    assert seen.read(attacked="val").keys() == {"train", "val"}


def test_only_test_and_validation_images_can_be_attacked() -> None:
    assert attacked_split(composed()) == "test"
    assert attacked_split({"evaluate": {"split": "val"}}) == "val"
    with pytest.raises(UserError, match=r"^evaluate\.split=train; choose test or val$"):
        attacked_split({"evaluate": {"split": "train"}})


def test_a_task_holds_its_classes_relabelled_whatever_pretraining_sees() -> None:
    given = config({"seen": SEEN, "unseen": [9, 6]}, f"data.classes={SEEN}")
    seen, unseen = cut_tasks(given)
    whole = Part(None, given["data"])
    everything = Part(None, {**given["data"], "classes": None}).read()
    assert (seen.entry("a"), unseen.entry("a")) == ("a-seen", "a-unseen")
    assert unseen.source.class_names == ("9", "6")
    for split in ("train", "test"):
        images, all_of = unseen.read()[split], everything[split]
        place = {int(i): at for at, i in enumerate(all_of.index)}
        before = np.array([all_of.labels[place[int(i)]] for i in images.index])
        # Label 0 is the first class that was named.
        assert (np.array([9, 6])[images.labels] == before).all()
        assert len(images) == np.isin(all_of.labels, [6, 9]).sum()
        others = set(whole.read()[split].index.tolist())
        assert not others & set(images.index.tolist())
        # A task of the classes that were seen is the data set as pretraining cuts it.
        assert seen.read()[split].fingerprint == whole.read()[split].fingerprint


def test_images_are_told_apart_and_counted_by_split() -> None:
    seen, unseen = cut_tasks(config({"seen": SEEN, "unseen": [6, 7]}))
    one, other = Images.of(seen.read()), Images.of(unseen.read())
    assert one.counts == {name: len(split) for name, split in seen.read().items()}
    assert one.fingerprints["train"] != other.fingerprints["train"]
    assert set(one.stored.values()) == {"raw"}


@pytest.mark.parametrize(
    ("tasks", "told"),
    [
        ({}, "names none"),
        ([0, 1], "names none"),
        ("seen", "names none"),
        ({"a/b": [0, 1]}, r"tasks\.a/b: .* letters"),
        ({"": [0, 1]}, "letters"),
        ({"a": 3}, r"tasks\.a=3; give a list"),
        ({"a": None}, "give a list"),
        ({"simclr": [0, 1], "a": [2, 3], "b-a": [4, 5]}, None),
    ],
)
def test_odd_tasks_are_told_in_one_line(tasks: Any, told: str | None) -> None:
    if told is None:
        assert len(cut_tasks(config(tasks))) == len(tasks)
        return
    with pytest.raises(UserError, match=told) as error:
        cut_tasks(config(tasks))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        ([], r"tasks\.a is empty"),
        ([0], r"tasks\.a has one class; name at least two"),
        ([0, 12], r"no class 12; tasks\.a takes places from 0 to 9"),
        ([0, "zero"], r"no class 'zero' in tasks\.a"),
        ([3, "3"], r"tasks\.a=\[3, '3'\] names a class twice"),
    ],
)
def test_odd_classes_name_the_task(classes: list[Any], told: str) -> None:
    (part,) = cut_tasks(config({"a": classes}))
    with pytest.raises(UserError, match=told) as error:
        part.check()
    assert "\n" not in str(error.value)
    assert "data.classes" not in str(error.value)


def test_two_arms_that_would_share_a_name_are_refused() -> None:
    arms = composed()["arms"]
    given = {
        **config({"c": [0, 1], "b-c": [2, 3]}),
        "arms": {"a": arms["simclr"], "a-b": arms["simclr"]},
    }
    with pytest.raises(UserError, match="would both be a-b-c; rename a task"):
        cut_tasks(given)


def test_a_mistake_about_a_task_names_it() -> None:
    part = Part("unseen", composed()["data"])
    with pytest.raises(UserError, match=r"^task unseen: too few"), part.naming():
        raise UserError("too few")
    whole = Part(None, composed()["data"])
    with pytest.raises(UserError, match=r"^too few"), whole.naming():
        raise UserError("too few")
