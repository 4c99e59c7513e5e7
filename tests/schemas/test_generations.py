"""Records of generations: what any Kafka client reads, and what is refused."""

import json
from datetime import UTC, datetime

import msgspec
import pytest

from schemas.errors import BadRecord
from schemas.generations import (
    POINTER_KEY,
    Act,
    Canary,
    Gate,
    GateFigure,
    GenerationRecord,
    PackageSource,
    Pointer,
    Record,
    decode_record,
    encode_record,
    key_of,
)
from schemas.ids import Generation, Offset, Partition
from tests.kit.data.generations import AT, generation_record

FULL = GenerationRecord(
    Generation("demo-0123abcd"),
    "building",
    "green",
    PackageSource(registry="s3://models/nearline"),
    "0123abcd",
    AT,
    goal={"post-contexts": {Partition(0): Offset(12), Partition(1): Offset(0)}},
    gate=Gate(
        AT, [GateFigure("recall of both tiers", 0.997, 0.995, True), GateFigure("overlap", 0.4, None, True, "shown")]
    ),
    history=[Act("build", AT, "host:12", "a new model")],
)
POINTER = Pointer(Generation("demo-0123abcd"), Generation("old-1"), Canary(Generation("old-1"), 0.05, AT))


@pytest.mark.parametrize("record", [FULL, generation_record("a-1"), POINTER, Pointer(Generation("a-1"))])
def test_what_is_written_is_read(record: Record) -> None:
    assert decode_record(key_of(record), encode_record(record)) == record


def test_any_client_can_read_it() -> None:
    assert (key_of(FULL), key_of(POINTER)) == (b"demo-0123abcd", POINTER_KEY)
    plain = json.loads(encode_record(FULL))
    assert plain["package"] == {"registry": "s3://models/nearline"}
    assert (plain["state"], plain["place"], plain["since"]) == ("building", "green", "2026-01-05T10:00:00Z")
    assert plain["goal"] == {"post-contexts": {"0": 12, "1": 0}}
    assert plain["history"] == [
        {"what": "build", "at": "2026-01-05T10:00:00Z", "who": "host:12", "reason": "a new model"}
    ]
    assert json.loads(encode_record(POINTER))["canary"]["share"] == 0.05


def test_fields_of_a_later_version_are_ignored() -> None:
    later = {**json.loads(encode_record(FULL)), "colour": "red"}
    later["gate"]["figures"][0]["why"] = "so"
    assert decode_record(FULL.id.encode(), json.dumps(later).encode()) == FULL
    assert decode_record(POINTER_KEY, b'{"serving":"a-1","moved":7}') == Pointer(Generation("a-1"))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (None, b"{}", "has no key"),
        (POINTER_KEY, None, "has no value"),
        (POINTER_KEY, b"close", "malformed"),
        (POINTER_KEY, b"{}", "serving"),
        (
            POINTER_KEY,
            b'{"serving":"a","canary":{"generation":"b","share":1.5,"since":"2026-01-05T10:00:00Z"}}',
            "share",
        ),
        (b"a-1", b"\xff", "not a record"),
        (b"a-1", b"[" * 100_000, "not a record"),
        (b"../a-1", encode_record(generation_record("../a-1")), "matching regex"),
        (b"another", encode_record(FULL), "its id is not its key"),
        (b"\xff", encode_record(FULL), "its id is not its key"),
        (FULL.id.encode(), encode_record(msgspec.structs.replace(FULL, since=datetime(2026, 1, 5))), "timezone"),
        (FULL.id.encode(), encode_record(FULL).replace(b'"building"', b'"begun"'), "begun"),
    ],
)
def test_a_damaged_record_is_refused_with_a_sentence(key: bytes | None, value: bytes | None, words: str) -> None:
    with pytest.raises(BadRecord, match=words):
        decode_record(key, value)


def test_a_gate_holds_if_it_has_figures_and_all_of_them_hold() -> None:
    holds, fails = GateFigure("one", 1.0, 1.0, True), GateFigure("two", 1.0, 2.0, False)
    assert [Gate(AT, figures).holds for figures in ([holds], [holds, fails], [])] == [True, False, False]
    assert AT.tzinfo is UTC
