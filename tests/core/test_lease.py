import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from rrl_dist.core import lease as module
from rrl_dist.core.errors import UserError
from rrl_dist.core.lease import Lease, held
from rrl_dist.core.store import Store, open_store

BEAT = 0.1  # seconds
PATIENCE = 3.0  # thirty beats: a busy machine may delay some

HOLDER = """
import sys, time
from rrl_dist.core.lease import held
from rrl_dist.core.store import open_store

with held(open_store(sys.argv[1]), beat=0.1) as lease:
    print(lease.generation, flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "store")
    body, _, query = request.getfixturevalue("s3").partition("?")
    return f"{body}/{tmp_path.name}?{query}"


@pytest.fixture
def store(address: str) -> Store:
    return open_store(address)


def stolen(store: Store) -> None:
    """Another owner writes its lease."""
    record = store.read_json("lease.json")
    store.write_json("lease.json", {**record, "owner": "other", "counter": 0})


def until(true: threading.Event) -> None:
    assert true.wait(30)


def test_a_clean_end_leaves_nothing_to_wait_for(store: Store) -> None:
    for generation in (1, 2, 3):
        begin = time.monotonic()
        with held(store, beat=BEAT, patience=60) as lease:
            assert lease.generation == generation
            lease.check()
        assert time.monotonic() - begin < 30


def test_an_error_is_a_clean_end_too(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), held(store, beat=BEAT):
        raise ZeroDivisionError
    with held(store, beat=BEAT, patience=60) as lease:
        assert lease.generation == 2


def test_a_second_command_is_refused_until_the_first_was_killed(
    address: str, store: Store
) -> None:
    command = [sys.executable, "-c", HOLDER, address]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"1\n"
            with (
                pytest.raises(UserError, match="still working there; wait") as caught,
                held(store, beat=BEAT, patience=60),
            ):
                pass
            assert "\n" not in str(caught.value)
            assert store.address in str(caught.value)
        finally:
            process.send_signal(signal.SIGKILL)
    begin = time.monotonic()
    with held(store, beat=BEAT, patience=PATIENCE) as lease:
        assert lease.generation == 2
        assert time.monotonic() - begin >= PATIENCE


def test_a_clock_that_jumps_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(tmp_path)
    with held(store, beat=BEAT) as lease:
        for jump in (1e9, -1e9):
            now = time.time() + jump
            monkeypatch.setattr(time, "time", lambda now=now: now)
            with (
                pytest.raises(UserError, match="still working"),
                held(store, beat=BEAT, patience=60),
            ):
                pass
            lease.check()


def test_a_stolen_lease_is_noticed_and_left_to_its_owner(store: Store) -> None:
    with held(store, beat=60, patience=1) as lease:
        lease.check()
        stolen(store)
        with pytest.raises(UserError, match="taken over by another command") as caught:
            lease.check()
    assert "\n" not in str(caught.value)
    record = store.read_json("lease.json")
    assert (record["owner"], record["free"]) == ("other", False)


def test_a_beat_that_finds_another_owner_is_remembered(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with held(store, beat=BEAT) as lease:
        mine = store.read_json("lease.json")
        deadline = time.monotonic() + 30
        # A beat between its reading and its writing may win over one theft.
        while not lease._lost and time.monotonic() < deadline:
            stolen(store)
            time.sleep(BEAT)
        store.write_json("lease.json", mine)
        with pytest.raises(UserError, match="taken over"):
            lease.check()


def test_a_lease_that_was_removed_is_lost(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with held(store, beat=60) as lease:
        store.remove("lease.json")
        with pytest.raises(UserError, match="taken over"):
            lease.check()


def test_a_network_that_is_away_for_a_while_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, failed = open_store(tmp_path), threading.Event()
    with held(store, beat=0.05) as lease:

        def away(self: Store, name: str, value: object) -> None:
            failed.set()
            raise UserError("the endpoint does not answer")

        with monkeypatch.context() as patch:
            patch.setattr(Store, "write_json", away)
            until(failed)
        lease.check()
        before = store.read_json("lease.json")["counter"]
        deadline = time.monotonic() + 30
        while store.read_json("lease.json")["counter"] == before:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        lease.check()


def race(store: Store, takers: int) -> list[Lease]:
    """Takers start at once; who holds the store afterwards, and passes its check."""
    start, leases = threading.Barrier(takers), []
    end, done = threading.Event(), [threading.Event() for _ in range(takers)]

    def take(mine: threading.Event) -> None:
        with ExitStack() as stack:
            try:
                start.wait()
                lease = stack.enter_context(held(store, beat=BEAT, patience=0.5))
                leases.append(lease)
            except UserError:
                return
            finally:
                mine.set()
            end.wait(60)

    threads = [threading.Thread(target=take, args=(mine,)) for mine in done]
    for thread in threads:
        thread.start()
    for mine in done:
        until(mine)
    time.sleep(3 * BEAT)
    kept = [lease for lease in leases if passes(lease)]
    end.set()
    for thread in threads:
        thread.join()
    return kept


def passes(lease: Lease) -> bool:
    try:
        lease.check()
    except UserError:
        return False
    return True


@pytest.mark.parametrize("takers", [2, 5])
def test_of_takers_at_once_one_stays(store: Store, takers: int) -> None:
    assert len(race(store, takers)) == 1
    store.write_json(
        "lease.json", {"owner": "dead", "generation": 7, "counter": 3, "free": False}
    )
    kept = race(store, takers)
    assert len(kept) == 1
    assert kept[0].generation >= 8


def test_a_taker_with_a_slow_write_gets_a_generation_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes when the other has read back already, and is believed to hold."""
    store, real = open_store(tmp_path), Lease._write
    slow = threading.current_thread()
    reading, first_holds, looked = (threading.Event() for _ in range(3))
    found: list[tuple[int, bool]] = []

    def write(self: Lease, *, free: bool = False) -> None:
        if threading.current_thread() is slow and not reading.is_set():
            reading.set()
            until(first_holds)
        real(self, free=free)

    def first() -> None:
        until(reading)
        with held(store, beat=60, patience=0.1) as lease:
            first_holds.set()
            until(looked)
            found.append((lease.generation, passes(lease)))

    monkeypatch.setattr(Lease, "_write", write)
    other = threading.Thread(target=first)
    other.start()
    with held(store, beat=BEAT) as lease:
        looked.set()
        other.join()
        lease.check()
        assert lease.generation == 2
    assert found == [(1, False)]


def test_the_first_of_two_that_write_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both found the store free before either wrote; the last one stays."""
    store, real = open_store(tmp_path), Lease._write
    last = threading.current_thread()
    reading, written = threading.Event(), threading.Event()
    refused: list[str] = []

    def write(self: Lease, *, free: bool = False) -> None:
        if threading.current_thread() is last and not reading.is_set():
            reading.set()
            until(written)
        real(self, free=free)
        written.set()

    def first() -> None:
        until(reading)
        try:
            with held(store, beat=60, patience=0.1):
                pass
        except UserError as error:
            refused.append(str(error))

    monkeypatch.setattr(Lease, "_write", write)
    monkeypatch.setattr(module, "_SETTLE", 3.0)
    other = threading.Thread(target=first)
    other.start()
    with held(store, beat=BEAT) as lease:
        other.join()
        lease.check()
    assert len(refused) == 1


def test_a_damaged_lease_is_told_of(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    for content in (b"", b"{}", b"[1]", b"3"):
        store.write(module._NAME, content)
        with pytest.raises(UserError, match="damaged; remove it"), held(store):
            pass
