"""Encodes rows as cells, small pieces of bytes with keys, so that an event stores only the pieces that it changed.

The *head* of a row is the cell with its state, which almost every event changes, and with all that is needed to find
the row's other cells. A long list of a row is cut into chunks. The last chunk grows and is stored in the head. The
chunks before it are *sealed*: they change rarely, and each has a cell.

The key of a cell is one letter, the entity's id and, for a sealed chunk, the number of the chunk. Only this module
knows what the cells of a row mean; the letter `o` is used too, in `streams/contexts/counted_offsets.py`. This module
does not know where cells are stored or how they are restored.
"""

import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct

from contexts.errors import DamagedRow
from contexts.history import History
from contexts.id_log import IdLog
from contexts.posts import waiting_since_us, waiting_until_us
from contexts.rows import MemberRow, MemberState, PostBody, PostRow, PostState, Profile, WaitingAction
from contexts.settings import ContextRules
from schemas.contexts import HistoryEntry
from schemas.ids import MemberId, Micros, PostId

Cells = dict[bytes, bytes | None]
"""The value of each key; None deletes the cell."""
GetCell = Callable[[bytes], bytes | None]
"""Returns the stored value of a key; None if there is no such cell."""

DUE: Final = b"d"
"""The letter of the due cells. The index of due rows is rebuilt from them, without a look at any row."""
_HEAD: Final = b"s"
"""The head of a post or a member."""
_BODY: Final = b"b"
"""The body of a post or the profile of a member."""
_WAITING_ACTIONS: Final = b"w"
"""Of a post: actions that came before the post, all in one cell."""
_RECIPIENTS: Final = b"r"
"""Of a post: sealed chunks of the list of members whose histories hold it."""
_HISTORY: Final = b"h"
"""Of a member: sealed chunks of the history."""
_ACTED: Final = b"a"
"""Of a member: sealed chunks of the list of posts that the member acted on."""
_HIDDEN: Final = b"x"
"""Of a member: sealed chunks of the list of posts that the member has hidden."""
_SEEN: Final = b"i"
"""Of a member: sealed chunks of the list of posts that the member was shown."""
_WAITING_POSTS: Final = b"v"
"""Of a member: sealed chunks of the list of posts in whose rows an action of the member may wait."""

_chunk_number = struct.Struct(">cI")
"""What follows the id in the key of a sealed chunk: NUL and the number of the chunk."""
_due_value = struct.Struct(">q?")
"""`Due` as it is stored."""
_NUL: Final = b"\0"

_ChunkedList = IdLog | History


class StoredIdLog(Struct, frozen=True, array_like=True, gc=False):
    """An id log as the head stores it. It has `num_sealed` sealed chunks, each in a cell, numbered from `start`. `tail`
    is the last chunk itself; None for an empty log."""

    start: int = 0
    num_sealed: int = 0
    tail: str | None = None


class StoredHistory(Struct, frozen=True, array_like=True, gc=False):
    """A history as the head stores it, in the same way. `skip` is how many entries of the first chunk are already
    dropped."""

    start: int = 0
    num_sealed: int = 0
    tail: tuple[HistoryEntry, ...] | None = None
    skip: int = 0


class PostHead(Struct, frozen=True, array_like=True, gc=False):
    """The head of a post. If `num_waiting` is 0, the post has no cell with waiting actions."""

    state: PostState
    recipients: StoredIdLog
    num_waiting: int


class MemberHead(Struct, frozen=True, array_like=True, gc=False):
    """The head of a member."""

    state: MemberState
    history: StoredHistory
    acted: StoredIdLog
    hidden: StoredIdLog
    waiting_posts: StoredIdLog
    seen: StoredIdLog = StoredIdLog()
    """Rows from before this field have none."""


_encoder = msgspec.msgpack.Encoder()
_post_head_decoder = msgspec.msgpack.Decoder(PostHead)
_member_head_decoder = msgspec.msgpack.Decoder(MemberHead)
_body_decoder = msgspec.msgpack.Decoder(PostBody)
_profile_decoder = msgspec.msgpack.Decoder(Profile)
_waiting_decoder = msgspec.msgpack.Decoder(tuple[WaitingAction, ...])
_chunk_decoder = msgspec.msgpack.Decoder(tuple[HistoryEntry, ...])


class Due(NamedTuple):
    """Why and when a row must be looked at again: what its due cell stores. `stored_us` has two meanings.

    If `publishes`, a publication is delayed, and `stored_us` is when it must be published. Otherwise actions wait for a
    post that does not exist yet, and `stored_us` is when the oldest of them came. How long an action may wait is a rule
    and not stored, so that the rules may change between two starts."""

    stored_us: Micros
    publishes: bool


def due_us(due: Due, rules: ContextRules) -> Micros:
    """When the row must be looked at again, by today's rules."""
    return due.stored_us if due.publishes else waiting_until_us(due.stored_us, rules)


def due_cell(entity_id: str, due: Due | None) -> tuple[bytes, bytes | None]:
    """The key and the value of the due cell."""
    return DUE + entity_id.encode(), None if due is None else _due_value.pack(*due)


def read_due_cell(key: bytes, value: bytes | None) -> tuple[str, Due | None]:
    """The entity of a due cell, and what the cell stores; None if the cell was deleted. Raises DamagedRow."""
    entity_id = key[len(DUE) :].decode()
    if value is None:
        return entity_id, None
    try:
        stored_us, publishes = _due_value.unpack(value)
    except struct.error as error:
        raise DamagedRow(f"the due cell of {entity_id!r} cannot be read: {error}") from error
    return entity_id, Due(Micros(stored_us), publishes)


def post_due(row: PostRow) -> Due | None:
    """Actions wait only while the post does not exist, and only an existing post is published. So at most one of the
    two times is set."""
    publish_us, waiting_us = row.state.publish_due_us, waiting_since_us(row)
    if publish_us is not None:
        return Due(publish_us, publishes=True)
    return None if waiting_us is None else Due(waiting_us, publishes=False)


def member_due(row: MemberRow) -> Due | None:
    publish_us = row.state.publish_due_us
    return None if publish_us is None else Due(publish_us, publishes=True)


def post_cells(before: PostRow, after: PostRow) -> Cells:
    """What to write so that the stored row `before` becomes the row `after`, without the due cell."""
    id_bytes = after.post_id.encode()
    cells: Cells = {_HEAD + id_bytes: _encoder.encode(_post_head_of(after))}
    if after.body is not before.body:
        cells[_BODY + id_bytes] = _encode(after.body)
    if after.waiting_actions is not before.waiting_actions:
        cells[_WAITING_ACTIONS + id_bytes] = _encode(after.waiting_actions or None)
    _put_sealed_chunks(cells, _RECIPIENTS, id_bytes, before.recipients, after.recipients)
    return cells


def member_cells(before: MemberRow, after: MemberRow) -> Cells:
    """What to write so that the stored row `before` becomes the row `after`, without the due cell."""
    id_bytes = after.member_id.encode()
    cells: Cells = {_HEAD + id_bytes: _encoder.encode(_member_head_of(after))}
    if after.profile is not before.profile:
        cells[_BODY + id_bytes] = _encode(after.profile)
    _put_sealed_chunks(cells, _HISTORY, id_bytes, before.history, after.history)
    _put_sealed_chunks(cells, _ACTED, id_bytes, before.acted, after.acted)
    _put_sealed_chunks(cells, _HIDDEN, id_bytes, before.hidden, after.hidden)
    _put_sealed_chunks(cells, _WAITING_POSTS, id_bytes, before.waiting_posts, after.waiting_posts)
    _put_sealed_chunks(cells, _SEEN, id_bytes, before.seen, after.seen)
    return cells


def load_post(post_id: PostId, get: GetCell) -> PostRow:
    """An empty row if nothing is stored. Raises DamagedRow."""
    with _damage_errors(post_id):
        return _load_post(post_id, get)


def load_member(member_id: MemberId, get: GetCell) -> MemberRow:
    """An empty row if nothing is stored. Raises DamagedRow."""
    with _damage_errors(member_id):
        return _load_member(member_id, get)


def row_ids(keys: Iterable[bytes]) -> set[str]:
    """The entities that have a row among these cells. What is no UTF-8 is no id."""
    heads = (key[len(_HEAD) :].decode(errors="replace") for key in keys if key.startswith(_HEAD))
    return {head for head in heads if "\N{REPLACEMENT CHARACTER}" not in head}


@contextmanager
def _damage_errors(entity_id: str) -> Iterator[None]:
    """Translates the errors of decoding a row."""
    try:
        yield
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DamagedRow(f"a piece of the row of {entity_id!r} cannot be read: {error}") from error


def _load_post(post_id: PostId, get: GetCell) -> PostRow:
    id_bytes = post_id.encode()
    stored = get(_HEAD + id_bytes)
    if stored is None:
        return PostRow(post_id)
    head = _post_head_decoder.decode(stored)
    body = get(_BODY + id_bytes) if head.state.order is not None else None
    waiting = get(_WAITING_ACTIONS + id_bytes) if head.num_waiting else None
    return PostRow(
        post_id,
        head.state,
        None if body is None else _body_decoder.decode(body),
        () if waiting is None else _waiting_decoder.decode(waiting),
        _load_ids(get, _RECIPIENTS, id_bytes, head.recipients),
    )


def _load_member(member_id: MemberId, get: GetCell) -> MemberRow:
    id_bytes = member_id.encode()
    stored = get(_HEAD + id_bytes)
    if stored is None:
        return MemberRow(member_id)
    head = _member_head_decoder.decode(stored)
    profile = get(_BODY + id_bytes) if head.state.order is not None else None
    return MemberRow(
        member_id,
        head.state,
        None if profile is None else _profile_decoder.decode(profile),
        _load_history(get, id_bytes, head.history),
        _load_ids(get, _ACTED, id_bytes, head.acted),
        _load_ids(get, _HIDDEN, id_bytes, head.hidden),
        _load_ids(get, _SEEN, id_bytes, head.seen),
        _load_ids(get, _WAITING_POSTS, id_bytes, head.waiting_posts),
    )


# A head is encoded with every event. So it is built as plain tuples, which are faster to build than the structs above
# and are encoded as the same bytes.


def _post_head_of(row: PostRow) -> tuple[Any, ...]:
    return row.state, _stored_ids(row.recipients), len(row.waiting_actions)


def _member_head_of(row: MemberRow) -> tuple[Any, ...]:
    history = _stored_history(row.history)
    id_logs = (row.acted, row.hidden, row.waiting_posts, row.seen)
    return row.state, history, *map(_stored_ids, id_logs)


def _stored_history(history: History) -> tuple[Any, ...]:
    tail = history.chunks[-1] if history.chunks else None
    return history.start, max(0, len(history.chunks) - 1), tail, history.skip


def _stored_ids(log: IdLog) -> tuple[int, int, str | None]:
    return (log.start, len(log.chunks) - 1, log.chunks[-1]) if log.chunks else (log.start, 0, None)


def _encode(part: Any) -> bytes | None:
    return None if part is None else _encoder.encode(part)


def _chunk_key(letter: bytes, id_bytes: bytes, number: int) -> bytes:
    # Ids have different lengths, but no id contains NUL. So the keys of two entities are never equal.
    return letter + id_bytes + _chunk_number.pack(_NUL, number)


def _put_sealed_chunks(cells: Cells, letter: bytes, id_bytes: bytes, before: _ChunkedList, after: _ChunkedList) -> None:
    """Adds to `cells` what has changed in the sealed chunks of a list: new chunks are put, and dropped chunks are
    deleted. A chunk that has not changed is the same object in both lists, and is left alone.

    For example the posts that member `m` acted on (letter `a`). To be short, a chunk has only two ids here:

        before = IdLog(start=3, chunks=("p1\\0p2", "p3\\0p4"))    number 3 has a cell, number 4 was in the head
        after = IdLog(start=4, chunks=("p3\\0p4", "p5"))          number 4 is sealed now, number 5 is in the head
        cells = {b"am\\0\\0\\0\\0\\4": b"p3\\0p4", b"am\\0\\0\\0\\0\\3": None}
    """
    if after is before:
        return
    sealed = after.chunks[:-1]
    # Unchanged chunks are the same objects, so this comparison is fast.
    if sealed == before.chunks[:-1] and after.start == before.start:
        return
    old_chunks: dict[int, object] = dict(enumerate(before.chunks[:-1], before.start))
    for number, chunk in enumerate(sealed, after.start):
        if old_chunks.pop(number, None) is not chunk:
            value = chunk.encode() if isinstance(chunk, str) else _encoder.encode(chunk)
            cells[_chunk_key(letter, id_bytes, number)] = value
    # Only the chunks that `after` no longer has are left here.
    for number in old_chunks:
        cells[_chunk_key(letter, id_bytes, number)] = None


def _load_history(get: GetCell, id_bytes: bytes, stored: StoredHistory) -> History:
    if stored.tail is None:
        return History(stored.start)
    sealed = (_chunk_decoder.decode(chunk) for chunk in _load_sealed_chunks(get, _HISTORY, id_bytes, stored))
    return History(stored.start, stored.skip, (*sealed, stored.tail))


def _load_ids(get: GetCell, letter: bytes, id_bytes: bytes, stored: StoredIdLog) -> IdLog:
    if stored.tail is None:
        return IdLog(stored.start)
    sealed = (chunk.decode() for chunk in _load_sealed_chunks(get, letter, id_bytes, stored))
    return IdLog(stored.start, (*sealed, stored.tail))


def _load_sealed_chunks(
    get: GetCell, letter: bytes, id_bytes: bytes, stored: StoredIdLog | StoredHistory
) -> Iterator[bytes]:
    for number in range(stored.start, stored.start + stored.num_sealed):
        chunk = get(_chunk_key(letter, id_bytes, number))
        if chunk is None:
            raise DamagedRow(f"a piece of the row of {id_bytes.decode()!r} is missing")
        yield chunk
