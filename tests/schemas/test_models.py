"""Records of published models: what any Kafka client reads and writes, and what is refused."""

import json
from typing import Any

import pytest

from schemas.errors import BadRecord
from schemas.generations import PackageSource
from schemas.ids import Generation
from schemas.models import ModelRecord, decode_model, encode_model
from tests.kit.data.generations import AT

RECORD = ModelRecord(Generation("demo-0123abcd"), "0123abcd", PackageSource(registry="s3://models"), AT)
KEY = RECORD.generation.encode()


def test_what_is_written_is_read() -> None:
    assert decode_model(KEY, encode_model(RECORD)) == RECORD
    assert json.loads(encode_model(RECORD)) == {
        "generation": "demo-0123abcd",
        "digest": "0123abcd",
        "package": {"registry": "s3://models"},
        "published_at": "2026-01-05T10:00:00Z",
    }


def test_fields_of_a_later_version_are_ignored_and_a_tombstone_is_no_model() -> None:
    assert decode_model(KEY, encode_model(RECORD)[:-1] + b',"colour":"red"}') == RECORD
    assert decode_model(KEY, None) is None


@pytest.mark.parametrize(
    ("key", "changes", "words"),
    [
        (None, {}, "has no key"),
        (b"another", {}, "its generation is not its key"),
        (b"../../etc", {"generation": "../../etc"}, "matching regex"),
        (b"\xff", {"generation": "\udcff"}, "not an announcement"),
        (KEY, {"published_at": "2026-01-05T10:00:00"}, "timezone"),
        (KEY, {"package": {}}, "neither a folder nor a registry, or in both"),
        (KEY, {"package": {"folder": "/m", "registry": "/r"}}, "neither a folder nor a registry, or in both"),
        (KEY, {"digest": None}, "digest"),
    ],
)
def test_a_damaged_record_is_refused_with_a_sentence(key: bytes | None, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRecord, match=words):
        decode_model(key, json.dumps({**json.loads(encode_model(RECORD)), **changes}).encode())


@pytest.mark.parametrize("value", [b"", b"\xff", b"[" * 100_000, b"{}"])
def test_rubbish_is_refused(value: bytes) -> None:
    with pytest.raises(BadRecord, match="not an announcement of a model"):
        decode_model(KEY, value)
