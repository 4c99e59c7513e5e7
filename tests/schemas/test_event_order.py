"""The promised order of events, against digests that were written down by hand (`printf %s BODY | sha256sum`)."""

import json
from itertools import permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.events import event_order, parse_event
from tests.kit.data.event_order import order_of

DIGESTS = {
    b'{"type":"post.updated","post_id":"p","author_id":"m","text":"red",'
    b'"created_at":"2026-01-05T10:00:00Z","at":"2026-01-05T12:00:00+01:00"}': (
        "19a272308e6244471679883892a988e1caf660f2859fbc83444c74f3e6c36ff9"
    ),
    b'{"type":"post.updated","post_id":"p","author_id":"m","text":"red",'
    b'"created_at":"2026-01-05T10:00:00Z","at":"2026-01-05T11:00:00Z"}': (
        "59dd8984ec36bc210bb2e586a691f48e0805f5dfa57c2050e2302dede0101358"
    ),
    b'{"type": "post.updated", "post_id": "p", "author_id": "m", "text": "red", '
    b'"created_at": "2026-01-05T10:00:00Z", "at": "2026-01-05T11:00:00Z"}': (
        "c32d2078972fd1c5f073fc0c0f6b8725c442097a4d53531135cf9c01e982e1ff"
    ),
    b'{"type":"post.updated","post_id":"p","author_id":"m","text":"green",'
    b'"created_at":"2026-01-05T10:00:00Z","at":"2026-01-05T11:00:00Z"}': (
        "e4ffa106526792a3be78b0747ef7444b8e98d3d607e585af827bc0da29624814"
    ),
}
"""Four updates with the same time, in their order."""


def test_of_one_moment_the_greater_digest_of_the_body_as_it_was_sent_wins() -> None:
    orders = {body: event_order(parse_event(body), body) for body in DIGESTS}
    assert {body: order.digest for body, order in orders.items()} == DIGESTS
    for sent in permutations(DIGESTS):
        assert sorted(sent, key=orders.__getitem__) == list(DIGESTS)


CREATED_AT = "2026-01-05T09:00:00Z"
MOMENTS = st.sampled_from([CREATED_AT, "2026-01-05T10:00:00Z", "2026-01-05T11:00:00+01:00", "2026-01-05T10:00:00.5Z"])
POST = {"author_id": "m", "created_at": CREATED_AT}


def body(kind: str, at: str, text: str) -> bytes:
    event = {"type": kind, "post_id": "p", "at": at} | ({} if kind == "post.deleted" else {**POST, "text": text})
    return json.dumps(event).encode()


bodies = st.builds(
    body, st.sampled_from(["post.created", "post.updated", "post.deleted"]), MOMENTS, st.sampled_from("abc")
)


@settings(deadline=None, max_examples=100)
@given(st.lists(bodies, min_size=2, max_size=8, unique=True))
def test_any_events_are_in_the_order_that_the_readme_says(sent: list[bytes]) -> None:
    assert sorted(sent, key=lambda raw: event_order(parse_event(raw), raw)) == sorted(sent, key=order_of)
