"""Bodies are read quickly, and as the standard library reads them: the same values, and the same words for mistakes."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from retriever.http.json_bodies import read_json
from tests.kit.raw_clients import ask
from tests.kit.retrievers import Served

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)
SIGNS = [bytes([sign]) for sign in b"[]{},:\"0-1.E+\\ \n\x00\xff'"]
WORDS = [b'"a"', b"e9", b"null", b"true", b"NaN", b"-Infinity", b"\\ud800", b"\\u0000", "ü".encode(), b"//"]
PIECES = st.sampled_from([*SIGNS, *WORDS])


def outcome(read: Any, body: bytes) -> str:
    """The value with its types, or the error with its place."""
    try:
        return repr(read(body))
    except (ValueError, RecursionError) as error:
        return repr((type(error), str(error)))


@given(VALUES, st.booleans())
def test_values_are_those_of_the_standard_library(value: Any, ascii_only: bool) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert outcome(read_json, body) == outcome(json.loads, body)


@given(st.lists(PIECES, max_size=12).map(b"".join))
@example(b"[1e400, -1e400, 1e-400, -0, -0.0, 1E5, 1.0, 123456789012345678901234567890]")
@example(b'{"a": 1, "a": 2}')
@example(b"1" * 5000)
@example(b"[" * 250 + b"]" * 250)
@example(b"[" * 100_000)
@example('\ufeff{"a": 1}'.encode())
@example('{"a": 1}'.encode("utf-16"))
@example('{"a": 1}'.encode("utf-32"))
@example(b'["\x1f"]')
@example(b'["\xed\xa0\x80"]')
@example(b"[1] x")
@example(b" \t\r\n[1]\n")
def test_so_are_values_and_errors_of_what_is_hardly_json(body: bytes) -> None:
    assert outcome(read_json, body) == outcome(json.loads, body)


def test_good_bodies_are_not_read_by_it(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []
    monkeypatch.setattr(json, "loads", read.append)
    assert ask(served).status_code == 200
    assert read == []
