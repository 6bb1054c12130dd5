"""A log that breaks off is shown once."""

from hypothesis import given
from hypothesis import strategies as st

from rrl_dist.submit.log import Log

PIECES = st.lists(st.text("ab\n", max_size=4), max_size=6)


@given(tries=st.lists(st.tuples(st.integers(0, 30), PIECES), max_size=5), rest=PIECES)
def test_each_character_is_shown_once_in_its_order(
    tries: list[tuple[int, list[str]]], rest: list[str]
) -> None:
    """Each try reads the log to some place, in pieces of its own; the last, all."""
    whole = "".join(piece for _, pieces in tries for piece in pieces) + "".join(rest)
    shown: list[str] = []
    log = Log(shown.append)
    for end, pieces in [*tries, (len(whole), rest)]:
        log.begin()
        read = 0
        for piece in [*map(len, pieces), len(whole)]:
            text = whole[read : min(read + piece, end)]
            log.add(text)
            read += len(text)
        assert "".join(shown) == whole[: log.shown]
        assert log.shown >= read
    assert "".join(shown) == whole


def test_what_was_shown_before_is_no_growth() -> None:
    log = Log(lambda text: None)
    log.begin()
    log.add("abc")
    log.begin()
    log.add("ab")
    assert log.shown == 3
    log.add("cd")
    assert log.shown == 4
