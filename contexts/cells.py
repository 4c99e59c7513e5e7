"""Rows as cells: small keyed pieces of bytes, so that an event stores what it changed and not the whole row.

A cell's key is one letter and the entity's id, and the number of the chunk where there are several. What a cell means
is known here alone; where cells are kept, and how they are restored, is not.
"""

import struct
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct

from contexts.errors import DamagedRow
from contexts.logs import History, IdLog
from contexts.posts import waiting_due_us
from contexts.rows import MemberRow, MemberState, PostBody, PostRow, PostState, Profile, Waiting
from contexts.settings import ContextRules
from schemas.contexts import HistoryEntry
from schemas.ids import MemberId, Micros, PostId

Cells = dict[bytes, bytes | None]
"""None: the cell is gone."""
GetCell = Callable[[bytes], bytes | None]

DUE: Final = b"d"
"""The letter of the cells that say when a row wants to be looked at; the index of what is due is rebuilt from them."""
_STATE: Final = b"s"
_BODY: Final = b"b"
_WAITING: Final = b"w"
_RECIPIENTS: Final = b"r"
_HISTORY: Final = b"h"
_ACTED: Final = b"a"
_HIDDEN: Final = b"x"
_WAITS: Final = b"v"

_number = struct.Struct(">cI")
_due = struct.Struct(">q?")
_NUL: Final = b"\0"

_Log = IdLog | History


class Span(NamedTuple):
    """Which chunks of a log there are."""

    start: int = 0
    num_chunks: int = 0


class PostHead(Struct, frozen=True, array_like=True):
    """The state cell of a post: read first, says which others there are."""

    state: PostState
    recipients: Span = Span()
    num_waiting: int = 0


class MemberHead(Struct, frozen=True, array_like=True):
    state: MemberState
    history: Span = Span()
    acted: Span = Span()
    hidden: Span = Span()
    waits: Span = Span()


_encoder = msgspec.msgpack.Encoder()
_post_head = msgspec.msgpack.Decoder(PostHead)
_member_head = msgspec.msgpack.Decoder(MemberHead)
_body = msgspec.msgpack.Decoder(PostBody)
_profile = msgspec.msgpack.Decoder(Profile)
_waiting = msgspec.msgpack.Decoder(tuple[Waiting, ...])
_entries = msgspec.msgpack.Decoder(tuple[HistoryEntry, ...])


class Due(NamedTuple):
    """When a row wants to be looked at, and whether it has a publication that waits (which a flush calls for)."""

    at_us: Micros
    publishes: bool


def due_cell(key: bytes, value: bytes) -> tuple[str, Due]:
    """The entity that a due cell is of, and what it says."""
    at_us, publishes = _due.unpack(value)
    return key[len(DUE) :].decode(), Due(Micros(at_us), publishes)


def post_due(row: PostRow, rules: ContextRules) -> Due | None:
    publish_us, waiting_us = row.state.publish_due_us, waiting_due_us(row, rules)
    times_us = [at_us for at_us in (publish_us, waiting_us) if at_us is not None]
    return Due(min(times_us), publish_us is not None) if times_us else None


def member_due(row: MemberRow) -> Due | None:
    at_us = row.state.publish_due_us
    return None if at_us is None else Due(at_us, publishes=True)


def post_cells(before: PostRow, after: PostRow, rules: ContextRules) -> Cells:
    """What has to be stored so that `before`, as it is stored, becomes `after`."""
    key = after.post_id.encode()
    cells: Cells = {}
    waiting_changed = after.waiting is not before.waiting
    if after.state is not before.state or after.recipients is not before.recipients or waiting_changed:
        head = PostHead(after.state, _span(after.recipients), len(after.waiting))
        cells[_STATE + key] = _encoder.encode(head)
    if after.body is not before.body:
        cells[_BODY + key] = _encode(after.body)
    if waiting_changed:
        cells[_WAITING + key] = _encode(after.waiting or None)
    _put_chunks(cells, _RECIPIENTS, key, before.recipients, after.recipients)
    _put_due(cells, key, post_due(before, rules), post_due(after, rules))
    return cells


def member_cells(before: MemberRow, after: MemberRow) -> Cells:
    """What has to be stored so that `before`, as it is stored, becomes `after`."""
    key = after.member_id.encode()
    cells: Cells = {}
    logs = _member_logs(before, after)
    if after.state is not before.state or any(was is not now for _, was, now in logs):
        spans = (_span(now) for _, _, now in logs)
        cells[_STATE + key] = _encoder.encode(MemberHead(after.state, *spans))
    if after.profile is not before.profile:
        cells[_BODY + key] = _encode(after.profile)
    for letter, was, now in logs:
        _put_chunks(cells, letter, key, was, now)
    _put_due(cells, key, member_due(before), member_due(after))
    return cells


def load_post(post_id: PostId, get: GetCell) -> PostRow:
    key = post_id.encode()
    stored = get(_STATE + key)
    if stored is None:
        return PostRow(post_id)
    head = _post_head.decode(stored)
    body = get(_BODY + key) if head.state.order is not None else None
    waiting = get(_WAITING + key) if head.num_waiting else None
    return PostRow(
        post_id,
        head.state,
        None if body is None else _body.decode(body),
        () if waiting is None else _waiting.decode(waiting),
        _load_ids(get, _RECIPIENTS, key, head.recipients),
    )


def load_member(member_id: MemberId, get: GetCell) -> MemberRow:
    key = member_id.encode()
    stored = get(_STATE + key)
    if stored is None:
        return MemberRow(member_id)
    head = _member_head.decode(stored)
    profile = get(_BODY + key) if head.state.order is not None else None
    history = (_entries.decode(chunk) for chunk in _load_chunks(get, _HISTORY, key, head.history))
    return MemberRow(
        member_id,
        head.state,
        None if profile is None else _profile.decode(profile),
        History(head.history.start, tuple(history)),
        _load_ids(get, _ACTED, key, head.acted),
        _load_ids(get, _HIDDEN, key, head.hidden),
        _load_ids(get, _WAITS, key, head.waits),
    )


def _member_logs(before: MemberRow, after: MemberRow) -> tuple[tuple[bytes, _Log, _Log], ...]:
    return (
        (_HISTORY, before.history, after.history),
        (_ACTED, before.acted, after.acted),
        (_HIDDEN, before.hidden, after.hidden),
        (_WAITS, before.waits, after.waits),
    )


def _span(log: _Log) -> Span:
    return Span(log.start, len(log.chunks))


def _encode(part: Any) -> bytes | None:
    return None if part is None else _encoder.encode(part)


def _chunk_key(letter: bytes, key: bytes, number: int) -> bytes:
    # No id contains NUL, so no two entities share a key.
    return letter + key + _number.pack(_NUL, number)


def _put_chunks(cells: Cells, letter: bytes, key: bytes, before: _Log, after: _Log) -> None:
    if after is before:
        return
    was: dict[int, object] = dict(enumerate(before.chunks, before.start))
    for number, chunk in enumerate(after.chunks, after.start):
        if was.pop(number, None) is not chunk:
            value = chunk.encode() if isinstance(chunk, str) else _encoder.encode(chunk)
            cells[_chunk_key(letter, key, number)] = value
    for number in was:
        cells[_chunk_key(letter, key, number)] = None


def _put_due(cells: Cells, key: bytes, before: Due | None, after: Due | None) -> None:
    if before != after:
        cells[DUE + key] = None if after is None else _due.pack(*after)


def _load_chunks(get: GetCell, letter: bytes, key: bytes, span: Span) -> Iterator[bytes]:
    for number in range(span.start, span.start + span.num_chunks):
        chunk = get(_chunk_key(letter, key, number))
        if chunk is None:
            raise DamagedRow(f"a piece of the row of {key.decode()!r} is missing; remove the folder of the rows")
        yield chunk


def _load_ids(get: GetCell, letter: bytes, key: bytes, span: Span) -> IdLog:
    return IdLog(span.start, tuple(chunk.decode() for chunk in _load_chunks(get, letter, key, span)))
