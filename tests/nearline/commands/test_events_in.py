"""The commands that talk to the broker: ingest, wait, get, dead-letters, and what status says of the stages."""

import json
import shlex
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from nearline.ask import status
from schemas import topics
from schemas.contexts import encode_context
from schemas.dead_letters import DeadLetterCause, to_headers
from schemas.events import event_time_us, parse_event
from schemas.ids import Generation, Offset, Partition
from streams.errors import KafkaUnavailable
from streams.kafka.offsets import OffsetReader
from streams.kafka.records import Place
from streams.kafka.topics import ensure_topics
from streams.operate import dead_letter_box
from streams.settings import KafkaSettings
from tests.kit.commands import Commands
from tests.kit.data.bad_events import ACCEPTED, bodies
from tests.kit.data.contexts import post_context
from tests.kit.data.embeddings import DIMENSION, GENERATION
from tests.kit.data.events import activity, post_created, write_events
from tests.kit.instances import InstanceWithoutStages, instance_without_stages
from tests.kit.kafka.dead_letters import send_to_dead_letters
from tests.kit.kafka.topics import Sender, keys_and_values, produce, transaction
from tests.kit.retrievers import asking_member, scored_post
from tests.kit.waiting import until

pytestmark = pytest.mark.broker

CREATED = post_created("p1", "hello", author_id="m7", at="2026-01-05T10:00:00Z")
LIKE = activity("m9", "p1", at="2026-01-05T10:00:07Z")
BAD = {**LIKE, "action": "adore"}


@pytest.fixture
def place(kafka: KafkaSettings) -> Iterator[InstanceWithoutStages]:
    with instance_without_stages(str(kafka.bootstrap_servers)) as place:
        yield place


@pytest.fixture
def run(place: InstanceWithoutStages) -> Commands:
    return Commands(place.data_dir)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else this machine does, `status` has the time to learn all."""
    for name in ("_PROBE_S", "_HOT_S", "_KAFKA_CALL_S", "_COUNT_S", "_RECORDS_S"):
        monkeypatch.setattr(status, name, 60.0)
    monkeypatch.setattr(status, "read_status", partial(status.read_status, budget_s=120.0))


def test_good_files_are_sent_and_a_bad_one_is_not(kafka: KafkaSettings, run: Commands, tmp_path: Path) -> None:
    good = write_events(tmp_path / "good.jsonl", [CREATED])
    bad = write_events(tmp_path / "bad.jsonl", [LIKE, BAD])
    ran = run("ingest", good, bad)
    assert ran.status == 1
    reported, ended = ran.err.splitlines()
    assert reported.startswith(f"{bad}:2: action: ")
    assert ended.startswith(f"nearline: nothing of {bad} was sent")
    assert ran.out.startswith("1 events sent")
    assert keys_and_values(kafka, topics.POSTS) == [(b"p1", json.dumps(CREATED).encode())]
    assert keys_and_values(kafka, topics.ACTIVITY) == []


def test_skip_bad_sends_the_rest_and_is_content(kafka: KafkaSettings, run: Commands, tmp_path: Path) -> None:
    ran = run("ingest", "--skip-bad", write_events(tmp_path / "bad.jsonl", [BAD, LIKE]))
    assert ran.status == 0
    assert ":1: action: " in ran.err
    assert keys_and_values(kafka, topics.ACTIVITY) == [(b"m9", json.dumps(LIKE).encode())]


def test_of_a_wrong_file_the_first_twenty_lines_are_told(run: Commands, tmp_path: Path) -> None:
    file = tmp_path / "wrong.jsonl"
    file.write_text("{}\n" * 20_000)
    ran = run("ingest", file)
    assert ran.status == 1
    *reported, more, ended = ran.err.splitlines()
    assert [line.split(": ")[0] for line in reported] == [f"{file}:{number}" for number in range(1, 21)]
    assert more == f"{file}: and 19980 more bad lines"
    assert ended.startswith(f"nearline: nothing of {file} was sent")


def test_that_a_file_is_no_json_is_told_once(run: Commands, tmp_path: Path) -> None:
    file = tmp_path / "wrong.csv"
    file.write_text("a,b\n" * 20_000)
    ran = run("ingest", file)
    assert ran.status == 1
    first, kind, more, ended = ran.err.splitlines()
    assert first.startswith(f"{file}:1: the record is not valid JSON")
    assert kind == f"{file}: none of its first 20 lines is JSON"
    assert more == f"{file}: and 19999 more bad lines"
    assert ended.startswith(f"nearline: nothing of {file} was sent")


def test_that_a_file_with_blank_lines_is_no_json_is_told_once_too(run: Commands, tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text("# words\n\n" * 30)
    first, kind, more, _ = run("ingest", file).err.splitlines()
    assert first.startswith(f"{file}:1: the record is not valid JSON")
    assert kind == f"{file}: none of its first 20 lines is JSON"
    assert more == f"{file}: and 29 more bad lines"


def test_fields_that_nothing_reads_are_told_once_a_file(kafka: KafkaSettings, run: Commands, tmp_path: Path) -> None:
    coloured = {**LIKE, "colour": "red"}
    files = [write_events(tmp_path / name, [coloured, coloured]) for name in ("a", "b")]
    ran = run("ingest", *files, write_events(tmp_path / "c", [LIKE]))
    assert ran.status == 0
    words = "no event has these fields, nothing reads them: colour of activity"
    assert ran.err.splitlines() == [f"{file}: {words}" for file in files]
    assert len(keys_and_values(kafka, topics.ACTIVITY)) == 5


def test_every_kind_of_bad_line_is_named_with_its_mend(kafka: KafkaSettings, run: Commands, tmp_path: Path) -> None:
    cases = [case for case in bodies() if case.value]
    files = [tmp_path / f"case-{number}" for number in range(len(cases))]
    for file, case in zip(files, cases, strict=True):
        file.write_bytes(case.value or b"")
    ran = run("ingest", "--skip-bad", *files)
    reported = dict(line.split(":1: ", 1) for line in ran.err.splitlines() if "nothing reads them" not in line)
    for file, case in zip(files, cases, strict=True):
        sentence = reported.pop(str(file), "")
        assert bool(sentence) == (case.cause != ACCEPTED), f"{case.name}: {sentence}"
        assert case.cause in sentence, f"{case.name}: {sentence}"
    assert reported == {}
    assert ran.err.replace("\n", "").isprintable(), "no byte of the file reaches the terminal"
    accepted = {(case.key, case.value) for case in cases if case.cause == ACCEPTED}
    sent_on = {record for topic in topics.INPUTS for record in keys_and_values(kafka, topic)}
    assert sent_on == accepted


def test_a_file_of_all_times_cannot_be_moved_to_now(kafka: KafkaSettings, run: Commands, tmp_path: Path) -> None:
    file = write_events(tmp_path / "e.jsonl", [CREATED, {**CREATED, "created_at": "9998-12-31T00:00:00Z"}])
    ran = run("ingest", "--shift-to-now", file)
    assert (ran.status, ran.out) == (1, "")
    assert ran.err.startswith(f"nearline: {file}: with its newest event moved to now, its oldest would be before 1970")
    assert keys_and_values(kafka, topics.POSTS) == []


def test_a_shifted_file_sent_again_is_the_same_events(kafka: KafkaSettings, run: Commands, tmp_path: Path) -> None:
    file = write_events(tmp_path / "e.jsonl", [CREATED, LIKE])
    for _ in range(2):
        assert run("ingest", "--shift-to-now", file).status == 0
    first, second = keys_and_values(kafka, topics.ACTIVITY)
    assert first == second
    moved = parse_event(first[1] or b"")
    created = parse_event(keys_and_values(kafka, topics.POSTS)[0][1] or b"")
    assert event_time_us(moved) - event_time_us(created) == 7_000_000
    assert event_time_us(moved) > event_time_us(parse_event(json.dumps(LIKE).encode()))


def test_two_files_move_by_one_constant(kafka: KafkaSettings, run: Commands, tmp_path: Path) -> None:
    run("ingest", "--shift-to-now", write_events(tmp_path / "a", [CREATED]), write_events(tmp_path / "b", [LIKE]))
    post_sent, action = keys_and_values(kafka, topics.POSTS)[0][1], keys_and_values(kafka, topics.ACTIVITY)[0][1]
    assert event_time_us(parse_event(action or b"")) - event_time_us(parse_event(post_sent or b"")) == 7_000_000


def test_wait_ends_in_time_with_what_is_behind(run: Commands, tmp_path: Path) -> None:
    run("ingest", write_events(tmp_path / "e", [LIKE]))
    ran = run("wait", "--timeout", "1")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == (
        "nearline: not everything is searchable after 1 s; contexts still has to read 1 records of activity\n"
    )


def test_get_shows_context_and_tiers(kafka: KafkaSettings, place: InstanceWithoutStages, run: Commands) -> None:
    contexts = [post_context("hello", post_id="p1", revision=revision) for revision in (1, 2)]
    Sender(kafka).send(topics.POST_CONTEXTS, [("p1", encode_context(context)) for context in contexts])
    place.retriever.in_cold(scored_post("p1", revision=2), asking_member("m1"), scored_post("gone", deleted=True))
    answer = run("get", "post", "p1", "--json").json
    assert list(answer) == ["context", "cold", "hot"]
    assert (answer["context"]["revision"], answer["context"]["text"]) == (2, "hello")
    assert answer["cold"].items() >= {"present": True, "revision": 2, "deleted": False}.items()
    assert not answer["hot"]["present"]
    nobody = run("get", "member", "nobody", "--json")
    absent = {"present": False, "revision": None, "deleted": None}
    assert nobody.lines[0].items() >= {"context": None, "cold": absent, "hot": absent}.items()
    assert nobody.lines[0]["vector"]["form"] is None
    assert (nobody.status, nobody.err) == (1, "nearline: there is no member nobody, neither a context nor a vector\n")
    assert run("get", "post", "p2").status == run("vectors", "post", "p2").status == 1
    assert run("get", "post", "gone").status == 0, "a tombstone is something"
    assert run("get", "member", "m1", "--json").json["cold"]["present"]
    assert "member form: the log of the generations does not name the package of" in run("get", "member", "m1").out
    assert nobody.lines[0]["vectors"]["number"] == 0
    unit = np.eye(DIMENSION, dtype=np.float32)[:2]
    place.retriever.in_cold(asking_member("m2", interests=[(unit[0], 3.0), (unit[1], 1.0)]))
    of_three = run("get", "member", "m2", "--json").json["vectors"]
    assert (of_three["number"], of_three["weights"]) == (3, [0.5, 0.375, 0.125])
    vectors = "vectors: 3 (weights 0.50, 0.38, 0.12): its one vector, and one for each cluster"
    assert vectors in run("get", "member", "m2").out
    assert "hello" in run("get", "post", "p1").out


def send_texts(kafka: KafkaSettings, **texts: str) -> None:
    contexts = [post_context(text, post_id=post_id) for post_id, text in texts.items()]
    Sender(kafka).send(topics.POST_CONTEXTS, [(context.post_id, encode_context(context)) for context in contexts])


def test_candidates_come_with_the_start_of_their_texts(
    kafka: KafkaSettings, place: InstanceWithoutStages, run: Commands
) -> None:
    retriever = place.retriever
    retriever.in_cold(
        asking_member("m1"), *(scored_post(name, score) for name, score in (("a", 0.9), ("b", 0.8), ("c", 0.7)))
    )
    send_texts(kafka, a="two\nlines, \x1b[31mred\x9b and " + "x" * 100, b="short")
    ran = run("retrieve", "--member", "m1")
    assert ran.out.splitlines()[0].split() == ["rank", "score", "tier", "post", "text"]
    texts = [line.split(maxsplit=4)[4] for line in ran.out.splitlines()[1:4]]
    assert texts[0].startswith("two lines, \\x1b[31mred\\x9b and xxx")
    assert (len(texts[0]), texts[0][-2:]) == (60, "x…")
    assert texts[1:] == ["short", "-"]
    assert ran.err == "nearline: no text of 1 post is among the newest 100,000 contexts\n"
    assert run("retrieve", "--member", "m1", "-k", "2").err == ""


def test_candidates_in_json_come_with_whole_texts_when_asked(
    kafka: KafkaSettings, place: InstanceWithoutStages, run: Commands
) -> None:
    place.retriever.in_cold(asking_member("m1"), scored_post("a", 0.9), scored_post("b", 0.8))
    send_texts(kafka, a="two\nlines " * 20)
    plain = run("retrieve", "--member", "m1", "--json").json["candidates"]
    assert [list(candidate) for candidate in plain] == [["post_id", "score", "tier"]] * 2
    full = run("retrieve", "--member", "m1", "--json", "--show-text").json["candidates"]
    assert [candidate["text"] for candidate in full] == ["two\nlines " * 20, None]


def die(kafka: KafkaSettings, *causes: str, key: bytes | None = b"p1") -> list[DeadLetterCause]:
    """One letter each, in partition 1."""
    letters = [DeadLetterCause("contexts", topics.POSTS, Partition(1), Offset(7), cause) for cause in causes]
    for cause in letters:
        send_to_dead_letters(kafka, 1, key, b'{"a":1}', [*to_headers(cause)])
    return letters


@pytest.mark.usefixtures("patient")
def test_dead_letters_are_seen_and_sent_back(kafka: KafkaSettings, run: Commands) -> None:
    assert run("dead-letters", "list").out == "there is no dead letter\n"
    (cause,) = die(kafka, "text: too long")
    listed = run("dead-letters", "list", "--json").lines
    assert [letter.pop("at")[:2] for letter in listed] == ["20"]
    assert listed == [{"id": "1:0", **cause._asdict(), "key": "p1"}]
    assert run("dead-letters", "show", "1:0", "--json").json["value"] == '{"a":1}'
    assert 'value      {"a":1}\n' in run("dead-letters", "show", "1:0").out
    assert run("dead-letters", "show", "1:1").err.startswith("nearline: there is no dead letter 1:1")
    assert run("dead-letters", "replay", "1:0").out == "1 sent back\n"
    assert run("dead-letters", "replay", "1:0").status == 1
    assert run("dead-letters", "replay", "--all").out == "0 sent back\n"
    assert keys_and_values(kafka, topics.POSTS) == [(b"p1", b'{"a":1}')]
    assert run("status", "--json").json["dead_letters"] == 0


def test_dead_letters_are_summed_up_by_cause_and_paged(
    kafka: KafkaSettings, place: InstanceWithoutStages, run: Commands
) -> None:
    die(kafka, *(f"the key b'{number}' disagrees with the value; use 'p'" for number in range(40)))
    die(kafka, "text is empty", key=b"\x1b[2J" + b"x" * 100)
    out = run("dead-letters", "list").out
    first, *_ = lines = out.splitlines()
    assert first.split() == ["letters", "stage", "topic", "cause"]
    assert lines[1].split(maxsplit=3) == ["40", "contexts", "posts", "the key b… disagrees with the value; use …"]
    assert lines[2].split(maxsplit=3) == ["1", "contexts", "posts", "text is empty"]
    assert [line.split()[0] for line in lines[5:-1]] == [f"1:{number}" for number in range(20)]
    folder = str(place.data_dir)
    assert lines[-1] == f"and 21 more: nearline dead-letters list --after 1:19 --data-dir {folder}"
    filters = "--cause", "the key b'", "--older-than", "0s", "--limit", "15"
    more = run("dead-letters", "list", *filters).out.splitlines()[-1]
    assert more.startswith("and 25 more: ")
    _, *again = shlex.split(more.removeprefix("and 25 more: "))
    assert again == ["dead-letters", "list", "--after", "1:14", *filters, "--data-dir", folder]
    assert Commands()(*again).out.splitlines()[-1].startswith("and 10 more: nearline dead-letters list --after 1:29 ")
    last = run("dead-letters", "list", "--after", "1:38", "--limit", "2").out.splitlines()[-2:]
    assert [line.split()[0] for line in last] == ["1:39", "1:40"]
    assert last[1].isprintable()
    assert "\\x1b[2Jxxx" in last[1]
    assert len(run("dead-letters", "list", "--json").lines) == 41
    assert run("dead-letters", "list", "--after", "1:40").out.splitlines()[-1] == "there is none behind 1:40"
    none = run("dead-letters", "list", "--older-than", "1d").out
    assert none == "there is no dead letter that fits --older-than\n"
    listed = run("dead-letters", "list", "--json", "--limit", "1", "--cause", "empty").lines
    assert [letter["id"] for letter in listed] == ["1:40"]


@pytest.mark.usefixtures("patient")
def test_dead_letters_are_dropped_by_cause_age_and_id(kafka: KafkaSettings, run: Commands) -> None:
    die(kafka, "text is empty", "text is empty", "other", "more", "more")
    assert run("dead-letters", "drop").err.startswith("nearline: say which dead letters")
    assert run("dead-letters", "drop", "--all", "1:0").status == 1
    assert "'soon' is no age; write one such as 90s" in run("dead-letters", "drop", "--older-than", "soon").err
    assert run("dead-letters", "drop", "--older-than", "1h").out == "0 dropped\n"
    assert run("dead-letters", "drop", "--cause", "empty").out == "2 dropped\n"
    assert run("dead-letters", "drop", "1:2").out == "1 dropped\n"
    assert run("status", "--json").json["dead_letters"] == 2
    assert run("dead-letters", "drop", "--older-than", "0s").out == "2 dropped\n"
    assert run("dead-letters", "list").out == "there is no dead letter\n"
    assert keys_and_values(kafka, topics.POSTS) == []


@pytest.mark.usefixtures("patient")
def test_status_shows_the_lag_of_every_stage(run: Commands, tmp_path: Path) -> None:
    run("ingest", write_events(tmp_path / "e", [CREATED, LIKE]))
    answer = run("status", "--json").json
    stages = {(row["stage"], row["topic"]): row for row in answer["stages"]}
    assert {stage for stage, _ in stages} == {"contexts", "trending", "encode", "index", "hot-feed"}
    assert stages["contexts", "posts"]["lag"] == 1
    assert 0 <= stages["contexts", "posts"]["oldest_age_s"] < 60
    assert stages["trending", "activity"]["lag"] == 1
    assert (stages["encode", "post-contexts"]["lag"], stages["encode", "post-contexts"]["oldest_age_s"]) == (0, None)
    assert (answer["ready"], answer["dead_letters"], answer["problems"]) == (True, 0, [])


@pytest.mark.usefixtures("patient")
def test_status_counts_records_and_not_the_control_records_of_transactions(kafka: KafkaSettings, run: Commands) -> None:
    place = Place(topics.POST_CONTEXTS, Partition(0))
    for _ in range(3):
        transaction(kafka, *place, commit=True)
    with closing(OffsetReader(kafka)) as reader:
        until(lambda: reader.stable_ends([place]) == {place: 6}, "the end of the last transaction")
    stages = run("status", "--json").json["stages"]
    assert [row["lag"] for row in stages if row["topic"] == place.topic] == [3]


@pytest.mark.usefixtures("patient")
def test_while_the_retriever_answers_from_another_generation_its_lag_is_unknown(
    kafka: KafkaSettings, place: InstanceWithoutStages, run: Commands
) -> None:
    """Right after a promotion: its positions are those of another topic, and stand for nothing here."""
    promoted = Generation("other-1")
    ensure_topics(kafka, topics.generation_topics(promoted))
    produce(kafka, topics.post_embeddings(promoted), 0)
    place.rewrite(generation=promoted)
    answer = run("status", "--json").json
    lags = {stage["stage"]: stage["lag"] for stage in answer["stages"] if stage["topic"].startswith("post-embeddings")}
    assert lags == {"index": 1, "hot-feed": None}
    assert (answer["ready"], answer["generation"]) == (True, promoted)
    assert answer["problems"] == [f"serve: it answers from {GENERATION}, and does not know {promoted} yet"]


@pytest.mark.usefixtures("patient")
def test_dead_letters_that_cannot_be_counted_leave_the_lags_known(
    run: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    def uncounted(*_: object) -> NoReturn:
        raise KafkaUnavailable("the broker sent nothing")

    monkeypatch.setattr(dead_letter_box, "count", uncounted)
    answer = run("status", "--json").json
    assert {stage["lag"] for stage in answer["stages"] if stage["stage"] != "hot-feed"} == {0}
    assert (answer["dead_letters"], answer["problems"]) == (None, ["dead letters: the broker sent nothing"])
