"""Which contexts are encoded again, and what is read of the log to know it."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, cast

from confluent_kafka import Message
from hypothesis import given
from hypothesis import strategies as st

from schemas.ids import Offset, Partition
from schemas.replays import ReplayRequest, encode_request
from streams.encode import newest_keys
from streams.encode.live_first import LiveFirst
from streams.encode.newest_keys import NewestKeys
from streams.encode.replays import EncodeReplays
from streams.kafka.processor import Processed
from streams.kafka.records import Place

REQUESTS = "requests"
PLACE = Place("contexts", Partition(0))


class StubMessage(NamedTuple):
    name: str
    at: int
    body: bytes = b""
    topic_name: str = PLACE.topic

    def topic(self) -> str:
        return self.topic_name

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self.at

    def key(self) -> bytes:
        return self.name.encode()

    def value(self) -> bytes:
        return self.body


class Log:
    """One partition of contexts: the key of each offset. Counts what is read."""

    def __init__(self, keys: str) -> None:
        self.keys = keys
        self.num_read = 0

    def stretch(self, place: Place, first: int, end: int) -> Iterator[StubMessage]:
        assert place == PLACE
        self.num_read += end - first
        return (StubMessage(self.keys[offset], offset) for offset in range(first, end))

    def records(self, place: Place, offsets: Iterable[int]) -> Iterator[StubMessage]:
        return (StubMessage(self.keys[offset], offset) for offset in sorted(offsets))

    def requests(self, end: int) -> list[Message]:
        """What a command asks for that sees the log up to `end`."""
        newest = {self.keys[offset]: offset for offset in range(end)}
        bodies = {key: encode_request(ReplayRequest(Offset(at), Offset(end))) for key, at in newest.items()}
        return [cast(Message, StubMessage(key, 0, body, REQUESTS)) for key, body in bodies.items()]


class Contexts:
    """Remembers which records are to be encoded."""

    turn_contexts = 100

    def encode(self, records: Sequence[StubMessage], *, with_origins: bool) -> list[Any]:
        assert not with_origins
        return [record.at for record in records]


def replays_of(log: Log, live_first: LiveFirst | None = None) -> EncodeReplays:
    parts = cast(Any, Contexts()), live_first or LiveFirst(), cast(Any, log)
    return EncodeReplays(REQUESTS, PLACE.topic, *parts, batch_records=1000)


@given(st.text("abcd", min_size=1, max_size=30), st.data())
def test_what_is_still_the_newest_of_what_is_encoded_is_encoded_again(keys: str, data: st.DataObject) -> None:
    log = Log(keys)
    replays = replays_of(log)
    encoded_until = 0
    for _ in range(data.draw(st.integers(1, 4))):
        end = data.draw(st.integers(0, len(keys)))
        encoded_until = data.draw(st.integers(encoded_until, len(keys)))
        requests = log.requests(end)
        processed = replays.process(requests, {PLACE: Offset(encoded_until)})
        newest = {keys[offset]: offset for offset in range(encoded_until)}
        asked = {keys[offset]: offset for offset in range(end)}
        right = sorted(offset for key, offset in asked.items() if newest.get(key) == offset)
        assert processed == Processed(cast(Any, right), len(requests))


def test_before_the_group_has_committed_anything_nothing_is_encoded_again() -> None:
    log = Log("abc")
    assert replays_of(log).process(log.requests(3), {PLACE: None}) == Processed([], 3)


def test_requests_wait_for_new_contexts_and_for_their_partition() -> None:
    log, live_first = Log("abc"), LiveFirst()
    replays = replays_of(log, live_first)
    live_first.report("another loop", has_records=True)
    assert replays.process(log.requests(3), {PLACE: Offset(3)}) is None
    live_first.report("another loop", has_records=False)
    assert replays.process(log.requests(3), {Place("contexts", Partition(1)): Offset(3)}) is None
    assert replays.process(log.requests(3), {PLACE: Offset(3)}) == Processed(cast(Any, [0, 1, 2]), 3)


def test_a_long_tail_is_read_in_steps_and_once(monkeypatch: Any) -> None:
    """So that no new context waits for all of it."""
    monkeypatch.setattr(newest_keys, "_STEP", 10)
    log = Log("ab" + "c" * 33)
    replays, requests = replays_of(log), log.requests(2)
    owned = {PLACE: Offset(35)}
    waits = 0
    while (processed := replays.process(requests, owned)) is None:
        waits += 1
    assert (processed, waits, log.num_read) == (Processed(cast(Any, [0, 1]), 2), 3, 33)
    assert replays.process(requests, owned) == processed
    assert log.num_read == 33
    replays.rest()
    assert replays._newest_keys._stretches == {}, "nothing is kept when nobody asks"


def test_an_earlier_request_is_answered_from_further_back() -> None:
    keys = NewestKeys(cast(Any, Log("abcabc")))
    assert keys.reach(PLACE, Offset(4), Offset(6))
    assert [keys.newest(PLACE, key) for key in (b"a", b"b")] == [-1, 4]
    assert keys.reach(PLACE, Offset(1), Offset(6))
    assert [keys.newest(PLACE, key) for key in (b"a", b"b")] == [3, 4]
