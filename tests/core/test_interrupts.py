import os
import signal
import subprocess
import sys
import threading

import pytest

from rrl_dist.core.interrupts import (
    StoppedError,
    answered,
    check_answered,
    handlers_kept,
    never,
    noted,
    unheard_by_children,
)

REQUESTS = (signal.SIGINT, signal.SIGTERM)


def ask(number: int) -> None:
    os.kill(os.getpid(), number)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in REQUESTS]


@pytest.mark.parametrize("first", REQUESTS)
@pytest.mark.parametrize("second", REQUESTS)
def test_the_first_request_is_noted_and_the_second_ends(
    first: int, second: int, capfd: pytest.CaptureFixture[str]
) -> None:
    before = handlers()
    with noted() as asked:
        assert not asked()
        ask(first)
        assert asked()
        assert "once more ends at once" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            ask(second)
    assert handlers() == before


def test_in_another_thread_nothing_is_heard() -> None:
    before, found = handlers(), []

    def work() -> None:
        with noted() as asked:
            found.extend([asked(), *handlers()])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False, *before]


def test_handlers_that_others_set_are_undone() -> None:
    before = handlers()
    with handlers_kept():
        for number in REQUESTS:
            signal.signal(number, signal.SIG_IGN)
    assert handlers() == before


@pytest.mark.parametrize("number", REQUESTS)
def test_each_request_is_answered_like_ctrl_c(number: int) -> None:
    before = handlers()
    with answered():
        check_answered()
        with pytest.raises(KeyboardInterrupt):
            ask(number)
    assert handlers() == before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("number", REQUESTS)
def test_a_request_that_python_loses_is_answered_later(number: int) -> None:
    class Freed:
        def __del__(self) -> None:
            ask(number)

    with answered():
        Freed()
        with pytest.raises(KeyboardInterrupt):
            check_answered()
    with answered():
        check_answered()


def test_ctrl_c_stays_ignored_where_it_was() -> None:
    with handlers_kept():
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with answered():
            ask(signal.SIGINT)
            check_answered()


def test_a_child_does_not_hear_ctrl_c_and_the_parent_does() -> None:
    code = "import sys; print('up', flush=True); print(sys.stdin.read())"
    heard = []
    with handlers_kept():
        signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
        with unheard_by_children():
            child = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            ask(signal.SIGINT)
        # In the block already, where another thread takes it.
        assert heard == [signal.SIGINT]
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        child.send_signal(signal.SIGINT)
        assert child.communicate("still here")[0] == "still here\n"
    assert child.returncode == 0


def test_a_stop_is_an_interrupt_that_says_more() -> None:
    assert issubclass(StoppedError, KeyboardInterrupt)
    assert never() is False
