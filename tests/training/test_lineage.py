import pytest
from hypothesis import given
from hypothesis import strategies as st

from rrl_dist.core.errors import UserError
from rrl_dist.training.lineage import ordered, teachers


def arms(**teacher: str | None) -> dict[str, dict[str, str | None]]:
    return {name: {"teacher": known} for name, known in teacher.items()}


@given(data=st.data())
def test_teachers_come_first_and_each_arm_once(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from("abcdefg"), unique=True, min_size=1))
    chosen: dict[str, str | None] = {}
    for place, name in enumerate(names):
        chosen[name] = data.draw(st.sampled_from([None, *names[:place]]))
    shuffled = {name: chosen[name] for name in data.draw(st.permutations(names))}
    found = ordered(arms(**shuffled))
    assert sorted(found) == sorted(names)
    for name, teacher in chosen.items():
        if teacher is not None:
            assert found.index(teacher) < found.index(name)
        # Arms of one generation keep the order of the configuration.
    first = [name for name in shuffled if shuffled[name] is None]
    assert [name for name in found if chosen[name] is None] == first


def test_teachers_are_named_nearest_first() -> None:
    assert teachers(arms(a=None, b="a", c="b"), "c") == ["b", "a"]
    assert teachers(arms(a=None), "a") == []
    assert teachers({"a": {}}, "a") == []


@pytest.mark.parametrize(
    ("given_arms", "message"),
    [
        (arms(a="z", b=None), r"arms\.a\.teacher=z is no arm; there are a, b"),
        (arms(a="a"), "its own teacher"),
        (arms(a="b", b="a"), "its own teacher"),
        (arms(a="b", b="c", c="b"), "its own teacher"),
    ],
)
def test_teachers_that_cannot_be_are_refused(given_arms, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ordered(given_arms)
