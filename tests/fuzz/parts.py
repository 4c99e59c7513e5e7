"""What the targets need beside the code they fuzz: a renderer that uses every field, seeds, and words to try."""

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from google.protobuf.message import Message
from tokenizers import Tokenizer

from encoders.package.manifest import (
    PROFILE_FIELDS,
    BaseModel,
    Manifest,
    MemberTemplate,
    PostTemplate,
    PromptForm,
    Templates,
    TokenLimits,
    default_special_tokens,
    number_fields,
)
from encoders.prompt.prompts import Prompts
from encoders.prompt.safe_tokenizer import SafeTokenizer
from indexer.cold.socket import messages
from indexer.tiers import ColdHits, ColdQuery
from retriever import nearline_pb2 as pb
from schemas.contexts import HistoryEntry, MemberContext, PostContext, encode_context
from schemas.embeddings import MemberEmbedding, PostEmbedding, encode_embedding, pack_vector
from schemas.hops import MemberAction, PostActivity, encode_hop
from schemas.ids import MemberId, Micros, Offset, Partition, PostId, Revision
from schemas.trending import TrendingEntry, TrendingList, encode_trending

_DEMO: Final = Path(__file__).parents[2] / "nearline" / "demo" / "package" / "tokenizer.json"
_TEMPLATES: Final = Templates(
    PostTemplate(("author", "language", "age", "count.like", "rate.like", "rate.view", "text"), "Find"),
    MemberTemplate(PROFILE_FIELDS, "Who", history_ages=True),
)


@cache
def fuzzed_prompts() -> Prompts:
    """Templates with every kind of field, over the demo's tokenizer."""
    special = default_special_tokens(_TEMPLATES, PromptForm())
    tokenizer = Tokenizer.from_file(str(_DEMO))
    tokenizer.add_special_tokens(list(special.values()))
    manifest = Manifest(
        id="fuzz",
        base_model=BaseModel("none"),
        templates=_TEMPLATES,
        special_tokens=special,
        quantiles={name: [float(number) for number in range(1, 100)] for name in number_fields(_TEMPLATES)},
        dimensions=(8,),
        dimension=8,
        token_limits=TokenLimits(post=100, member=200),
    )
    with tempfile.TemporaryDirectory(prefix="nearline-fuzz-") as folder:
        file = Path(folder) / "tokenizer.json"
        tokenizer.save(str(file))
        return Prompts(manifest, SafeTokenizer(file, special))


GRPC_CALLS: Final = ("Retrieve", "RetrieveBatch", "Similar", "Vectors")


def grpc_input(call: str, message: Message) -> bytes:
    """The first byte says which call the rest goes to."""
    return bytes([GRPC_CALLS.index(call)]) + bytes(message.SerializeToString())


_TIME: Final = "2026-01-05T10:00:00Z"
_POST: Final = {"post_id": "p", "author_id": "m", "text": "text", "language": "en", "created_at": _TIME}
_VECTOR: Final = pack_vector(np.eye(8, dtype=np.float32)[0])
_HITS: Final = ColdHits([PostId("p")], np.ones(1, np.float32), np.ones(1, np.int64), {Partition(0): Offset(5)})
_ENTRY: Final = HistoryEntry(PostId("p"), "like", Micros(5), "text")


def seeds(target: str) -> list[bytes]:
    """Good inputs, from which the fuzzer sets out. Long because it is a table: one entry for each target."""
    inputs: dict[str, list[bytes]] = {
        "events": [
            json.dumps(event).encode()
            for event in (
                {"type": "post.created", **_POST},
                {"type": "post.updated", **_POST, "at": _TIME},
                {"type": "post.deleted", "post_id": "p", "at": _TIME},
                {"type": "member.updated", "member_id": "m", "headline": "h", "skills": ["s"], "at": _TIME},
                {"type": "member.deleted", "member_id": "m", "at": _TIME},
                {"type": "activity", "member_id": "m", "post_id": "p", "action": "dwell", "dwell_ms": 5, "at": _TIME},
            )
        ],
        "hops": [
            encode_hop(PostActivity(MemberId("m"), "like", Micros(5), 7)),
            encode_hop(MemberAction(PostId("p"), "like", Micros(5), "text")),
            encode_trending(TrendingList(0, Micros(5), 3600.0, [TrendingEntry(PostId("p"), 1.5)])),
        ],
        "contexts": [
            encode_context(PostContext(PostId("p"), Revision(1), Micros(5), text="text", counts={"like": 1})),
            encode_context(MemberContext(MemberId("m"), Revision(1), Micros(5), skills=["s"], history=[_ENTRY])),
        ],
        "embeddings": [
            encode_embedding(
                PostEmbedding(
                    PostId("p"), Revision(1), False, MemberId("m"), "en", Micros(1_767_600_000_000_000), _VECTOR
                )
            ),
            encode_embedding(MemberEmbedding(MemberId("m"), Revision(1), False, [PostId("p")], [], None, _VECTOR)),
        ],
        "wires": [
            messages.encode_request(messages.search_request([ColdQuery(np.eye(8, dtype=np.float32)[0], 5)])),
            messages.encode_request(messages.Posts(ids=[PostId("p")], with_vectors=True, timeout_s=1.5)),
            messages.encode_request(messages.Count(kind="post")),
            messages.encode_request(messages.Scroll()),
            messages.encode_request(messages.AskPosition()),
            messages.encode_answer(messages.pack_hits(_HITS)),
            messages.encode_answer([(PostId("p"), Revision(1), False, MemberId("m"), None, Micros(5), _VECTOR), None]),
            messages.encode_answer([(MemberId("m"), Revision(1), False, [], [], _VECTOR, [])]),
            messages.encode_answer(7),
        ],
        "prompts": [bytes(range(200)), b"\x01" * 100],
        "retrieve": [
            b'{"member_id": "m1", "k": 10, "hide_acted": true, "own_posts": false}',
            b'{"text": "words", "languages": ["en"], "created_after": "2026-01-05T10:00:00Z"}',
            b'{"text": "words", "exclude_authors": ["m"], "exclude_posts": ["p1"], "k": 2048}',
            b'{"vector": [1.0, 0, 0, 0, 0, 0, 0, 0.5], "columns": ["author", "created_at", "revision", "language"]}',
            b'{"post_ids": ["p1"], "only_authors": ["author"], "only_posts": ["p2"], "generation": "test-0"}',
            b'{"text": "words", "created_before": "2026-01-05T10:00:00Z", "hide_seen": true, "timeout_ms": 200}',
        ],
        "grpc": [
            grpc_input("Retrieve", pb.RetrieveRequest(member_id="m1", k=10, hide_acted=True, hide_seen=True)),
            grpc_input("Retrieve", pb.RetrieveRequest(text="words", languages=["en"], created_after_us=5)),
            grpc_input("Retrieve", pb.RetrieveRequest(vector=np.eye(8)[0], columns=[1, 2, 3, 4], timeout_ms=200)),
            grpc_input("Retrieve", pb.RetrieveRequest(post_ids=["p1"], only_posts=pb.Ids(ids=["p2"]))),
            grpc_input("RetrieveBatch", pb.RetrieveBatchRequest(queries=[pb.RetrieveRequest(text="words")] * 2)),
            grpc_input("Similar", pb.SimilarRequest(post_ids=["p1", "p2"], k=1, generation="test-0")),
            grpc_input("Vectors", pb.VectorsRequest(post_ids=["p1", "p3"])),
        ],
    }
    return inputs[target]


NAMES: Final = (
    *(*_POST, "type", "member_id", "action", "at", "dwell_ms", "headline", "skills", "industry", "revision"),
    *("as_of_us", "at_us", "counts", "history", "acted", "hidden", "deleted", "vector"),
    *("k", "languages", "created_after", "exclude_authors", "exclude_posts", "hide_acted", "own_posts"),
    *("post_ids", "columns", "generation", "timeout_ms", "created_before", "only_authors", "only_posts", "hide_seen"),
    *("queries", "created_after_us", "created_before_us", "ids"),
)
WORDS: Final = (
    *(f'"{name}":' for name in NAMES),
    *('"post.updated"', '"activity"', '"like"', "null", "true", "1e400", "-0", "NaN", '"\\ud800"', "\\u0000"),
    *("9" * 25, "-9223372036854775809", "18446744073709551616", "0.1e-400", "[[[[[[", '{"a":{"a":'),
    *('"9999-12-31T23:59:59-23:59"', '"0001-01-01T00:00:00+23:59"', '"1970-01-01T00:00:00Z"', "\u202e", "\x1b[2J"),
    *("<|nearline:text|>", "<|nearline:action.like|>", "\x00", "dead-letter-offset"),
)
"""Libfuzzer puts these into inputs."""
