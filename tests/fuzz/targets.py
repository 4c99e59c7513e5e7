"""The targets of the fuzzer. Each takes any bytes and raises nothing: the code refuses bad input with its own error,
and what it accepts is the same after it is encoded and decoded again."""

import json
from contextlib import suppress
from functools import cache
from itertools import count
from typing import Any, Final

import atheris
import msgspec

from contexts.cells import load_member, load_post, member_cells, post_cells
from contexts.members import apply_member_action, apply_member_event, publish_member
from contexts.posts import apply_activity, apply_post_event, publish_post
from contexts.rows import Hop, MemberRow, PostRow
from contexts.settings import ContextRules
from encoders.errors import Unencodable
from encoders.prompt.prompts import Prompts, is_encodable
from indexer.cold.socket import messages
from indexer.errors import IndexerError
from indexer.freshness import Freshness
from indexer.hot.tier import MatrixHotTier
from indexer.id_table import IdTable
from indexer.records import read_embedding
from indexer.settings import HotSettings
from indexer.tiers import HotRecord
from retriever import nearline_pb2 as pb
from schemas.contexts import (
    Context,
    MemberContext,
    PostContext,
    decode_member_context,
    decode_post_context,
    encode_context,
)
from schemas.dead_letters import DeadLetterCause, from_headers, to_headers, without_cause
from schemas.embeddings import PostEmbedding, decode_member_embedding, decode_post_embedding, encode_embedding
from schemas.errors import BadRecord
from schemas.events import (
    Activity,
    Event,
    PostEvent,
    decode_event,
    event_key,
    event_order,
    event_time_us,
    event_topic,
    parse_event,
)
from schemas.hops import MemberAction, PostActivity, decode_member_action, decode_post_activity, encode_hop
from schemas.ids import MemberId, Micros, Millis, Offset, Partition, PostId, Revision
from schemas.times import to_micros
from schemas.trending import decode_trending, encode_trending
from streams.encode.context_records import _embedding
from streams.errors import NoSuchDeadLetter
from streams.operate.dead_letter_box import parse_id
from streams.operate.event_files import _time_fields, shift_times
from tests.fuzz.parts import GRPC_CALLS, fuzzed_prompts
from tests.fuzz.service import Refused, service
from tests.fuzz.taken import member_context, post_context, text

RULES: Final = ContextRules()
NOW_US: Final = Micros(1_767_600_000_000_000)
_offsets: Final = count()
POST: Final = PostRow(PostId("p"))
MEMBER: Final = MemberRow(MemberId("m"))
_MOST_CHARS: Final = 600


def events(data: bytes) -> None:
    """A record's body, and all that the context stage and `ingest` do with it."""
    try:
        event = parse_event(data)
    except BadRecord as error:
        _is_a_sentence(str(error))
        return
    assert parse_event(msgspec.json.encode(event)) == event
    topic, key, newest = event_topic(event), event_key(event).encode(), event_time_us(event)
    assert decode_event(topic, key, data, Millis(newest // 1000)) == event
    shift_us = NOW_US - newest
    if min(to_micros(getattr(event, name)) for name in _time_fields(event)) + shift_us >= 0:
        assert event_time_us(parse_event(shift_times(event, shift_us))) == NOW_US
    _applied(event, data)


def hops(data: bytes) -> None:
    """What the context stage sends itself, and what operators see of dead letters."""
    for decode, apply in ((decode_post_activity, _to_post), (decode_member_action, _to_member)):
        try:
            hop: Any = decode(data)
        except BadRecord:
            continue
        assert decode(encode_hop(hop)) == hop
        apply(hop)
    try:
        decoded = decode_trending(data)
        assert decode_trending(encode_trending(decoded)) == decoded
    except BadRecord:
        pass
    taken = atheris.FuzzedDataProvider(data)
    names = ("dead-letter-partition", "dead-letter-offset", "dead-letter-cause", "own")
    headers = [(names[taken.ConsumeIntInRange(0, 3)], taken.ConsumeBytes(30)) for _ in range(4)]
    cause = from_headers(headers)
    assert from_headers(to_headers(cause)) == cause
    assert all(name == "own" for name, _ in without_cause(headers))
    assert from_headers(to_headers(DeadLetterCause("s", "t", Partition(1), Offset(2), taken.ConsumeUnicode(50))))
    with suppress(NoSuchDeadLetter):
        parse_id(taken.ConsumeUnicode(20))


def contexts(data: bytes) -> None:
    """What the encode stage reads, and what it would write of it."""
    for decode, decode_embedded in (
        (decode_post_context, decode_post_embedding),
        (decode_member_context, decode_member_embedding),
    ):
        try:
            context: Context = decode(data)
        except BadRecord:
            continue
        assert decode(encode_context(context)) == context
        embedding = _embedding(context, b"", b"", b"")
        assert decode_embedded(encode_embedding(embedding)) == embedding


def embeddings(data: bytes) -> None:
    """What the index loop and the hot feed read. The hot tier takes it, or refuses it."""
    for kind in ("post", "member"):
        try:
            embedding = read_embedding(kind, data)
        except BadRecord:
            continue
        assert read_embedding(kind, encode_embedding(embedding)) == embedding
        if isinstance(embedding, PostEmbedding):
            _into_hot_tier(embedding)


def wires(data: bytes) -> None:
    """What comes over the cold tier's socket, from either side."""
    try:
        request = messages.decode_request(data)
        assert messages.decode_request(messages.encode_request(request)) == request
        if isinstance(request, messages.Search):
            messages.queries_of(request)
    except IndexerError:
        pass
    shapes: tuple[Any, ...] = (list[messages.PackedPost | None], list[messages.PackedMember | None], int, Freshness)
    for shape in shapes:
        try:
            messages.decode_answer(data, shape)
        except IndexerError:
            continue
    with suppress(IndexerError):
        messages.unpack_hits(messages.decode_answer(data, messages.PackedHits))


def prompts(data: bytes) -> None:
    """The renderer: any text in any field gives a prompt within its limit, and leaves its neighbours' alone."""
    taken = atheris.FuzzedDataProvider(data)
    renderer = fuzzed_prompts()
    neighbour = PostContext(PostId("p"), Revision(1), Micros(5), text="plain", author_id=MemberId("a"))
    _check(renderer, renderer.posts([neighbour, post_context(taken), neighbour]), limit=100)
    who = member_context(taken)
    other = MemberContext(MemberId("m"), Revision(1), Micros(5), headline="plain")
    if is_encodable(who):
        _check(renderer, renderer.members([other, who, other]), limit=200)
    _check(renderer, renderer.texts(["plain", text(taken), "plain"]), limit=100)


def retrieve(data: bytes) -> None:
    """A request's body, through the whole service: an answer, or one sentence."""
    status, body = service().ask(data)
    answer = json.loads(body)
    if status == 200:
        assert set(answer) >= {"generation", "post_ids", "scores", "reasons"}
    else:
        # 404: a generation or posts that there are not. The last three: timeout_ms was short, or this machine slow.
        assert status in (400, 404, 422, 429, 503, 504), f"{status}: {body!r}"
        assert isinstance(answer["detail"], str)


def grpc(data: bytes) -> None:
    """A message to one of the calls, through the whole service: an answer, or a code and one sentence."""
    call, message = GRPC_CALLS[data[0] % len(GRPC_CALLS)] if data else GRPC_CALLS[0], data[1:]
    try:
        answer = service().call(call, message)
    except Refused as refused:
        code, sentence = refused.args
        assert code != "internal", sentence
        assert sentence
        return
    kind = pb.RetrieveResponse if call == "Similar" else getattr(pb, f"{call}Response")
    assert kind.FromString(answer).ByteSize()


def _is_a_sentence(text: str) -> None:
    assert text.isprintable(), text
    assert len(text) < _MOST_CHARS, text


def _applied(event: Event, body: bytes) -> None:
    if isinstance(event, Activity):
        hop = PostActivity(MemberId(event.member_id), event.action, event_time_us(event), event.dwell_ms)
        assert decode_post_activity(encode_hop(hop)) == hop
        _to_post(hop)
        return
    order = event_order(event, body)
    if isinstance(event, PostEvent):
        change = apply_post_event(POST, event, order, NOW_US, RULES)
        assert apply_post_event(change.row, event, order, NOW_US, RULES).row is change.row
        _kept_post(change.row)
        _sent(change.hops)
    else:
        row = apply_member_event(MEMBER, event, order).row
        _kept_member(row)


def _to_post(activity: PostActivity) -> None:
    change = apply_activity(POST, activity, NOW_US, RULES)
    _kept_post(change.row)
    _sent(change.hops)


def _to_member(action: MemberAction) -> None:
    _kept_member(apply_member_action(MEMBER, action, NOW_US, RULES).row)


def _sent(hops: tuple[Hop, ...]) -> None:
    for hop in hops:
        decode: Any = decode_member_action if isinstance(hop.payload, MemberAction) else decode_post_activity
        assert decode(encode_hop(hop.payload)) == hop.payload


def _kept_post(row: PostRow) -> None:
    """As cells and back, and as a context and back."""
    assert load_post(row.post_id, post_cells(POST, row).get) == row
    context = publish_post(row, NOW_US)[1]
    assert decode_post_context(encode_context(context)) == context


def _kept_member(row: MemberRow) -> None:
    assert load_member(row.member_id, member_cells(MEMBER, row).get) == row
    context = publish_member(row, NOW_US, RULES)[1]
    assert decode_member_context(encode_context(context)) == context


def _into_hot_tier(embedding: PostEmbedding) -> None:
    tier, offset = _hot_tier(), Offset(next(_offsets))
    try:
        tier.apply([HotRecord(embedding, Partition(0), offset, NOW_US)])
    except IndexerError:
        return
    (stored,) = tier.posts([embedding.post_id])
    assert stored is None or stored.post_id == embedding.post_id
    tier.expire(NOW_US)


_offsets: Final = count()


@cache
def _hot_tier() -> MatrixHotTier:
    return MatrixHotTier(8, HotSettings(capacity=64), IdTable())


def _check(renderer: Prompts, contexts: list[Any], *, limit: int) -> None:
    first, strange, last = contexts
    assert isinstance(first, list)
    assert first == last
    if not isinstance(strange, Unencodable):
        assert len(strange) <= limit
        renderer.render(strange)
