"""Properties of all events, and of all texts that are not events."""

import json
from datetime import UTC
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.errors import BadRecord
from schemas.events import (
    EVENT_TYPES,
    Event,
    PostEvent,
    decode_event,
    event_key,
    event_order,
    event_time_us,
    event_topic,
    parse_event,
)
from schemas.ids import Millis
from schemas.times import EPOCH, MICROSECOND, from_rfc3339, to_micros, to_rfc3339
from streams.operate.event_files import shift_times
from tests.kit.data.strategies import EVENTS, NEARLY_EVENTS, TIMES

quick = settings(max_examples=200)


@quick
@given(event=EVENTS)
def test_an_event_survives_the_way_there_and_back(event: Event) -> None:
    body = msgspec.json.encode(event)
    assert parse_event(body) == event
    as_others_write_it = json.dumps(json.loads(body), ensure_ascii=True, indent=1).encode()
    assert parse_event(as_others_write_it) == event
    sent_ms = Millis(event_time_us(event) // 1000)
    assert decode_event(event_topic(event), event_key(event).encode(), body, sent_ms) == event


@quick
@given(value=NEARLY_EVENTS)
def test_whatever_comes_is_an_event_or_one_short_sentence(value: object) -> None:
    body = json.dumps(value).encode()
    try:
        event = parse_event(body)
    except BadRecord as error:
        sentence = str(error)
        assert sentence.isprintable()
        assert len(sentence) < 600
    else:
        assert isinstance(event, EVENT_TYPES)
        assert parse_event(msgspec.json.encode(event)) == event


@quick
@given(body=st.binary(max_size=200), key=st.none() | st.binary(max_size=20))
def test_bytes_are_an_event_or_a_bad_record(body: bytes, key: bytes | None) -> None:
    with pytest.raises(BadRecord):
        decode_event("posts", key, body, Millis(0))


@quick
@given(bodies=st.lists(EVENTS.map(msgspec.json.encode), min_size=2, max_size=5, unique=True))
def test_the_order_is_total_and_tells_different_bodies_apart(bodies: list[bytes]) -> None:
    orders = {body: event_order(parse_event(body), body) for body in bodies}
    assert len(set(orders.values())) == len(bodies)
    ranked = sorted(bodies, key=orders.__getitem__)
    for earlier, later in pairwise(ranked):
        assert orders[earlier] < orders[later]
        assert not orders[later] < orders[earlier]


@quick
@given(moment=TIMES)
def test_times_are_exact_to_the_microsecond(moment: object) -> None:
    micros = to_micros(moment)  # type: ignore[arg-type]
    assert EPOCH + micros * MICROSECOND == moment
    assert from_rfc3339(to_rfc3339(micros)) == micros
    assert to_rfc3339(micros) == moment.astimezone(UTC).isoformat().replace("+00:00", "Z")  # type: ignore[attr-defined]


@quick
@given(event=EVENTS, shift_us=st.integers(0, 3 * 10**15))
def test_a_shift_moves_times_and_nothing_else(event: Event, shift_us: int) -> None:
    shift_us = min(shift_us, from_rfc3339("9998-12-30T00:00:00Z") - event_time_us(event))
    moved = parse_event(shift_times(event, shift_us))
    assert event_time_us(moved) == event_time_us(event) + shift_us
    back = parse_event(shift_times(moved, -shift_us))
    assert back == event
    assert isinstance(moved, PostEvent) == isinstance(event, PostEvent)
