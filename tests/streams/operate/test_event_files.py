"""Files of events: what a line is, why it is bad, and how its times are shifted."""

import gzip
import io
import json
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from schemas.canaries import CANARY_AUTHOR, canary_id
from schemas.events import event_time_us, parse_event, unknown_fields
from schemas.ids import Micros
from schemas.times import from_rfc3339
from streams.errors import BadFile
from streams.operate.event_files import MAX_LINE_BYTES, MOST_UNKNOWN, Survey, events, open_events, shift_times, survey
from tests.kit.data.events import activity, line, post_created, post_deleted

CREATED = post_created("p1", "hello", author_id="m7", at="2026-01-05T10:00:00Z")
LIKE = activity("m9", "p1", at="2026-01-05T10:00:07.5Z")
GOOD = [line(CREATED), line(LIKE)]


def write(path: Path, lines: list[bytes]) -> str:
    path.write_bytes(b"\n".join(lines) + b"\n")
    return str(path)


def look(argument: str, latest_us: Micros | None = None) -> tuple[Survey, list[tuple[int, str]]]:
    bad: list[tuple[int, str]] = []
    with open_events(argument) as file:
        return survey(file, latest_us, lambda number, reason: bad.append((number, str(reason)))), bad


def test_good_lines_are_sent_as_they_are_with_topic_and_key(tmp_path: Path) -> None:
    argument = write(tmp_path / "e.jsonl", [b"  " + GOOD[0] + b" \r", b"", GOOD[1]])
    summary, bad = look(argument)
    assert (summary.num_events, summary.num_bad, bad) == (2, 0, [])
    assert summary.newest_us == from_rfc3339("2026-01-05T10:00:07.5Z")
    with open_events(argument) as file:
        sent = list(events(file, None))
    assert [(event.topic, event.key, event.value) for event in sent] == [
        ("posts", b"p1", GOOD[0]),
        ("activity", b"m9", GOOD[1]),
    ]


def test_a_bad_line_is_named_with_its_number_and_reason(tmp_path: Path) -> None:
    bad_lines = [b"{", json.dumps({**CREATED, "post_id": 7}).encode(), b"x" * (MAX_LINE_BYTES + 5)]
    argument = write(tmp_path / "e.jsonl", [GOOD[0], b"", *bad_lines, GOOD[1]])
    summary, bad = look(argument)
    assert (summary.num_events, summary.num_bad) == (2, 3)
    assert [number for number, _ in bad] == [3, 4, 5]
    assert "not valid JSON" in bad[0][1]
    assert bad[1][1].startswith("post_id: ")
    assert "longer than" in bad[2][1]
    with open_events(argument) as file:
        assert [event.value for event in events(file, None)] == GOOD


def test_nobody_sends_canaries_but_the_monitor(tmp_path: Path) -> None:
    canary = canary_id("node", 0)
    lines = [line(post_created(canary, author_id=CANARY_AUTHOR)), line(post_deleted(canary))]
    _, bad = look(write(tmp_path / "events", lines))
    assert [number for number, reason in bad if reason.startswith("post_id is reserved for the canaries")] == [1, 2]


def test_fields_that_no_event_has_are_named_once_with_their_type(tmp_path: Path) -> None:
    coloured = [{**event, "colour": number, "a\x1b[2J": 1} for event in (CREATED, LIKE) for number in range(2)]
    lines = [json.dumps(event).encode() for event in (*coloured, {**CREATED, "at": CREATED["created_at"]})]
    summary, bad = look(write(tmp_path / "e.jsonl", [*GOOD, *lines]))
    names = [f"{name} of {tag}" for tag in ("post.created", "activity") for name in ("colour", r"a\x1b[2J")]
    assert (summary.unknown, bad) == ((*names, "at of post.created"), [])


def test_the_number_of_unknown_fields_is_limited(tmp_path: Path) -> None:
    lines = [json.dumps({**LIKE, f"field-{number}": 1}).encode() for number in range(2 * MOST_UNKNOWN)]
    assert len(look(write(tmp_path / "e.jsonl", lines))[0].unknown) == MOST_UNKNOWN


def test_a_time_in_the_future_is_bad_only_where_times_stay(tmp_path: Path) -> None:
    argument = write(tmp_path / "e.jsonl", GOOD)
    limit = from_rfc3339("2026-01-05T10:00:00Z")
    summary, bad = look(argument, limit)
    assert summary.num_bad == 1
    assert "24 h past now" in bad[0][1]
    with open_events(argument) as file:
        assert len(list(events(file, limit))) == 1


def test_a_gzipped_file_is_the_same_file(tmp_path: Path) -> None:
    plain = write(tmp_path / "e.jsonl", GOOD)
    packed = tmp_path / "e.jsonl.gz"
    packed.write_bytes(gzip.compress(Path(plain).read_bytes()))
    assert look(str(packed)) == look(plain)


@pytest.mark.parametrize("keep", [5, 60])
def test_a_torn_gzip_file_is_one_sentence(tmp_path: Path, keep: int) -> None:
    packed = tmp_path / "e.gz"
    packed.write_bytes(gzip.compress(b"\n".join(GOOD))[:keep])
    with pytest.raises(BadFile, match="cannot be read to its end"):
        look(str(packed))


@pytest.mark.parametrize("name", ["nothing-here", "."])
def test_what_cannot_be_opened_is_one_sentence(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadFile, match="cannot be opened"):
        look(str(tmp_path / name))


def test_a_pipe_is_spooled_and_can_be_read_twice(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(b"\n".join(GOOD)))
    writer.start()
    with open_events(str(pipe)) as file:
        assert survey(file, None, lambda *_: None).num_events == 2
        assert [event.value for event in events(file, None)] == GOOD
    writer.join()


def test_standard_input_is_a_file_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\n".join(GOOD))))
    summary, _ = look("-")
    assert summary.num_events == 2


@pytest.mark.parametrize("more", [b"\n" + GOOD[0], b"}"], ids=["a line", "the rest of a line"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["plain", "gzipped"])
def test_lines_that_are_appended_after_the_survey_are_not_sent(
    tmp_path: Path, more: bytes, pack: Callable[[bytes], bytes]
) -> None:
    """They were not checked, and a shift to now would move them into the future."""
    path = tmp_path / "growing.jsonl"
    path.write_bytes(pack(b"\n".join([*GOOD, GOOD[0][:-1]])))
    with open_events(str(path)) as file:
        assert survey(file, None, lambda *_: None)[:2] == (2, 1)
        with path.open("ab") as growing:
            growing.write(pack(more))
        assert [event.value for event in events(file, None)] == GOOD


def test_a_shift_moves_every_time_by_one_constant() -> None:
    updated = {**CREATED, "type": "post.updated", "language": None, "at": "2026-01-05T11:00:00+01:00"}
    day = 24 * 3600 * 1_000_000
    body = json.dumps(updated).encode()
    moved = shift_times(parse_event(body), day)
    assert json.loads(moved) == {**updated, "at": "2026-01-06T10:00:00Z", "created_at": "2026-01-06T10:00:00Z"}
    assert moved == shift_times(parse_event(body), day)


@pytest.mark.parametrize("unknown", [b'"\xff"', b"1e999", b"9" * 5000])
def test_no_content_of_an_unknown_field_prevents_a_shift(unknown: bytes) -> None:
    body = GOOD[1][:-1] + b', "colour": ' + unknown + b"}"
    event = parse_event(body)
    assert unknown_fields(event, body) in (["colour"], [])
    assert parse_event(shift_times(event, 0)) == event


def test_shifted_events_end_at_the_wanted_time(tmp_path: Path) -> None:
    argument = write(tmp_path / "e.jsonl", GOOD)
    summary, _ = look(argument)
    assert summary.newest_us is not None
    now = from_rfc3339("2026-03-01T00:00:00Z")
    with open_events(argument) as file:
        moved = [parse_event(event.value) for event in events(file, None, now - summary.newest_us)]
    assert event_time_us(moved[-1]) == now
    assert event_time_us(moved[0]) == now - 7_500_000
