"""Rows as cells: small keyed pieces of bytes, so that an event stores what it changed and not the whole row.

A cell's key is one letter and the entity's id, and the number of the chunk where there are several. What a cell means
is known here alone; where cells are kept, and how they are restored, is not.
"""

import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct

from contexts.errors import DamagedRow
from contexts.logs import History, IdLog
from contexts.posts import waiting_since_us, waiting_until_us
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


class IdSpan(Struct, frozen=True, array_like=True, gc=False):
    """An id log in a head: how many chunks have cells of their own, from which number on, and the last chunk."""

    start: int = 0
    num_sealed: int = 0
    tail: str | None = None


class HistorySpan(Struct, frozen=True, array_like=True, gc=False):
    start: int = 0
    num_sealed: int = 0
    tail: tuple[HistoryEntry, ...] | None = None
    skip: int = 0


class PostHead(Struct, frozen=True, array_like=True, gc=False):
    """The state cell of a post: what almost every event changes, and which other cells there are."""

    state: PostState
    recipients: IdSpan
    num_waiting: int


class MemberHead(Struct, frozen=True, array_like=True, gc=False):
    state: MemberState
    history: HistorySpan
    acted: IdSpan
    hidden: IdSpan
    waits: IdSpan


_encoder = msgspec.msgpack.Encoder()
_post_head = msgspec.msgpack.Decoder(PostHead)
_member_head = msgspec.msgpack.Decoder(MemberHead)
_body = msgspec.msgpack.Decoder(PostBody)
_profile = msgspec.msgpack.Decoder(Profile)
_waiting = msgspec.msgpack.Decoder(tuple[Waiting, ...])
_entries = msgspec.msgpack.Decoder(tuple[HistoryEntry, ...])


class Due(NamedTuple):
    """What a row waits for: a publication that was put off until `at_us`, or else a post, since `at_us`.

    It says what is in the row and nothing of the rules, so that the rules may change between two starts."""

    at_us: Micros
    publishes: bool


def due_us(due: Due, rules: ContextRules) -> Micros:
    """When the row must be looked at."""
    return due.at_us if due.publishes else waiting_until_us(due.at_us, rules)


def due_cell(entity_id: str, due: Due | None) -> tuple[bytes, bytes | None]:
    return DUE + entity_id.encode(), None if due is None else _due.pack(*due)


def read_due_cell(key: bytes, value: bytes | None) -> tuple[str, Due | None]:
    """The entity that a due cell is of, and what it says. Raises DamagedRow."""
    entity_id = key[len(DUE) :].decode()
    if value is None:
        return entity_id, None
    try:
        at_us, publishes = _due.unpack(value)
    except struct.error as error:
        raise DamagedRow(f"the due time of {entity_id!r} cannot be read: {error}") from error
    return entity_id, Due(Micros(at_us), publishes)


def post_due(row: PostRow) -> Due | None:
    """Nothing waits for a post that is there, so it is never both."""
    publish_us, since_us = row.state.publish_due_us, waiting_since_us(row)
    if publish_us is not None:
        return Due(publish_us, publishes=True)
    return None if since_us is None else Due(since_us, publishes=False)


def member_due(row: MemberRow) -> Due | None:
    at_us = row.state.publish_due_us
    return None if at_us is None else Due(at_us, publishes=True)


def post_cells(before: PostRow, after: PostRow) -> Cells:
    """What has to be stored so that `before`, as it is stored, becomes `after`; but for the due cell."""
    key = after.post_id.encode()
    cells: Cells = {_STATE + key: _encoder.encode(_post_head_of(after))}
    if after.body is not before.body:
        cells[_BODY + key] = _encode(after.body)
    if after.waiting is not before.waiting:
        cells[_WAITING + key] = _encode(after.waiting or None)
    _put_sealed(cells, _RECIPIENTS, key, before.recipients, after.recipients)
    return cells


def member_cells(before: MemberRow, after: MemberRow) -> Cells:
    """What has to be stored so that `before`, as it is stored, becomes `after`; but for the due cell."""
    key = after.member_id.encode()
    cells: Cells = {_STATE + key: _encoder.encode(_member_head_of(after))}
    if after.profile is not before.profile:
        cells[_BODY + key] = _encode(after.profile)
    _put_sealed(cells, _HISTORY, key, before.history, after.history)
    _put_sealed(cells, _ACTED, key, before.acted, after.acted)
    _put_sealed(cells, _HIDDEN, key, before.hidden, after.hidden)
    _put_sealed(cells, _WAITS, key, before.waits, after.waits)
    return cells


def load_post(post_id: PostId, get: GetCell) -> PostRow:
    """Raises DamagedRow."""
    with _readable(post_id):
        return _load_post(post_id, get)


def load_member(member_id: MemberId, get: GetCell) -> MemberRow:
    """Raises DamagedRow."""
    with _readable(member_id):
        return _load_member(member_id, get)


@contextmanager
def _readable(entity_id: str) -> Iterator[None]:
    try:
        yield
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DamagedRow(f"a piece of the row of {entity_id!r} cannot be read: {error}") from error


def _load_post(post_id: PostId, get: GetCell) -> PostRow:
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


def _load_member(member_id: MemberId, get: GetCell) -> MemberRow:
    key = member_id.encode()
    stored = get(_STATE + key)
    if stored is None:
        return MemberRow(member_id)
    head = _member_head.decode(stored)
    profile = get(_BODY + key) if head.state.order is not None else None
    return MemberRow(
        member_id,
        head.state,
        None if profile is None else _profile.decode(profile),
        _load_history(get, key, head.history),
        _load_ids(get, _ACTED, key, head.acted),
        _load_ids(get, _HIDDEN, key, head.hidden),
        _load_ids(get, _WAITS, key, head.waits),
    )


# Heads are encoded from plain tuples of the same layout: there is one for every event.


def _post_head_of(row: PostRow) -> tuple[Any, ...]:
    return row.state, _ids_span(row.recipients), len(row.waiting)


def _member_head_of(row: MemberRow) -> tuple[Any, ...]:
    history = row.history
    span = history.start, max(0, len(history.chunks) - 1), history.chunks[-1] if history.chunks else None, history.skip
    return row.state, span, _ids_span(row.acted), _ids_span(row.hidden), _ids_span(row.waits)


def _ids_span(log: IdLog) -> tuple[int, int, str | None]:
    return (log.start, len(log.chunks) - 1, log.chunks[-1]) if log.chunks else (log.start, 0, None)


def _encode(part: Any) -> bytes | None:
    return None if part is None else _encoder.encode(part)


def _chunk_key(letter: bytes, key: bytes, number: int) -> bytes:
    # No id contains NUL, so no two entities share a key.
    return letter + key + _number.pack(_NUL, number)


def _put_sealed(cells: Cells, letter: bytes, key: bytes, before: _Log, after: _Log) -> None:
    """Chunks but the last, which is in the head."""
    if after is before:
        return
    sealed = after.chunks[:-1]
    # Equal is quick to see: what did not change is the same object.
    if sealed == before.chunks[:-1] and after.start == before.start:
        return
    was: dict[int, object] = dict(enumerate(before.chunks[:-1], before.start))
    for number, chunk in enumerate(sealed, after.start):
        if was.pop(number, None) is not chunk:
            value = chunk.encode() if isinstance(chunk, str) else _encoder.encode(chunk)
            cells[_chunk_key(letter, key, number)] = value
    for number in was:
        cells[_chunk_key(letter, key, number)] = None


def _load_history(get: GetCell, key: bytes, span: HistorySpan) -> History:
    if span.tail is None:
        return History(span.start)
    sealed = (_entries.decode(chunk) for chunk in _load_sealed(get, _HISTORY, key, span))
    return History(span.start, span.skip, (*sealed, span.tail))


def _load_ids(get: GetCell, letter: bytes, key: bytes, span: IdSpan) -> IdLog:
    if span.tail is None:
        return IdLog(span.start)
    return IdLog(span.start, (*(chunk.decode() for chunk in _load_sealed(get, letter, key, span)), span.tail))


def _load_sealed(get: GetCell, letter: bytes, key: bytes, span: IdSpan | HistorySpan) -> Iterator[bytes]:
    for number in range(span.start, span.start + span.num_sealed):
        chunk = get(_chunk_key(letter, key, number))
        if chunk is None:
            raise DamagedRow(f"a piece of the row of {key.decode()!r} is missing")
        yield chunk
