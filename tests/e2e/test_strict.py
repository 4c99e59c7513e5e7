"""A pipeline on a broker that wants a password over TLS, with a short `erase_within_s`: `kafka.options` reaches every
client and the password no log; what is deleted leaves no text and no vector in any file, but for raw events and dead
letters until their retention."""

import json
import os
import struct
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

import numpy as np
import pytest
from psutil import Process
from structlog.testing import capture_logs

from nearline.pipeline import Pipeline
from schemas import topics
from schemas.api import RetrieveRequest
from schemas.ids import Generation
from schemas.topics import TopicSpec, core_topics, generation_topics
from streams.errors import KafkaUnavailable, LoginRefused
from streams.kafka.topics import ensure_topics
from streams.operate.wait import Wait
from streams.settings import KafkaSettings
from tests.kit.certificates import certificate
from tests.kit.commands import QuickPipeline
from tests.kit.data.events import activity, member_deleted, member_updated, post_created, post_deleted
from tests.kit.kafka.strict_broker import PASSWORD, StrictBroker
from tests.kit.kafka.topics import read_topic
from tests.kit.waiting import until

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]

ERASE_WITHIN_S: Final = 24
_PIECE_BYTES: Final = 4 * 1024 * 1024
RAW: Final = (*topics.INPUTS, topics.DEAD_LETTERS)
POST_TEXT: Final = "zirconium-quokka-31415"
HEADLINE: Final = "marzipan-ocelot-27182"
DWELL_MS: Final = 5_926_535_897_932_384_626
"""Of the activity that waits: in hops and rows eight bytes that no compression makes shorter."""
QUICK: Final = {
    # The broker looks every five minutes and waits half a minute after its start; that is well within a day.
    "log.retention.check.interval.ms": "500",
    "log.initial.task.delay.ms": "500",
    "log.cleaner.backoff.ms": "500",
}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Of the broker, the data and the log."""
    with tempfile.TemporaryDirectory(prefix="nearline-strict-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def broker(folder: Path) -> Iterator[StrictBroker]:
    strict = StrictBroker(folder, QUICK)
    try:
        strict.embedded.start(dies_with_parent=True)
        yield strict
    finally:
        strict.embedded.stop()


@pytest.fixture(scope="module")
def kafka(broker: StrictBroker) -> KafkaSettings:
    # Not compressed, so that a text is in a file as it is.
    settings = broker.settings("SASL_SSL", **{"compression.type": "none"})
    return KafkaSettings.model_validate({**settings, "erase_within_s": ERASE_WITHIN_S, "partitions": 2})


@pytest.fixture(scope="module")
def pipeline(folder: Path, kafka: KafkaSettings) -> Iterator[Pipeline]:
    options = json.dumps({name: value.get_secret_value() for name, value in kafka.options.items()})
    environment = {
        "NEARLINE_KAFKA__BOOTSTRAP_SERVERS": str(kafka.bootstrap_servers),
        "NEARLINE_KAFKA__PARTITIONS": str(kafka.partitions),
        "NEARLINE_KAFKA__ERASE_WITHIN_S": str(kafka.erase_within_s),
        "NEARLINE_KAFKA__OPTIONS": options,
        "NEARLINE_TRENDING__INTERVAL_S": "0.5",
        # What is deleted must go from topics that are quiet, too.
        "NEARLINE_MONITOR__CANARY_S": "0",
    }
    with QuickPipeline(folder / "data", environment=environment) as running:
        yield running


def test_the_whole_pipeline_runs_over_tls_with_a_password(pipeline: Pipeline) -> None:
    """Ingest, contexts, encode, both tiers, trending and the commands."""
    pipeline.ingest(
        [member_updated("m", headline="sails"), post_created("p", "the boat left the harbour"), activity("m", "p")]
    )
    pipeline.wait()
    assert [entry["post_id"] for entry in pipeline.ask("get", "member", "m")["context"]["history"]] == ["p"]
    with pipeline.client() as client:
        assert "p" in client.retrieve(RetrieveRequest(member_id="m", k=5)).post_ids
        stranger = RetrieveRequest(member_id="nobody", k=5)
        until(lambda: "p" in client.retrieve(stranger).post_ids, "the post to trend", 30, every_s=0.2)
    assert pipeline.ask("status")["ready"] is True
    up = Process(pipeline.instance.supervisor_pid)
    lines = [word for process in (up, *up.children(recursive=True)) for word in process.cmdline()]
    assert not any(PASSWORD in word for word in lines), "everybody can read a process list"
    assert PASSWORD not in pipeline.log_file.read_text()


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SSL"])
def test_a_password_alone_and_tls_alone(broker: StrictBroker, protocol: str) -> None:
    ensure_topics(KafkaSettings.model_validate(broker.settings(protocol)), [TopicSpec("strict", "events")])


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SSL"])
def test_whoever_is_not_trusted_is_told_so_and_gets_nothing(
    broker: StrictBroker, protocol: str, tmp_path: Path
) -> None:
    strangers = {"ssl.ca.location": str(certificate(tmp_path, "stranger").ca_file)}
    wrong = strangers if protocol == "SSL" else {"sasl.password": "guessed"}
    settings = KafkaSettings.model_validate(broker.settings(protocol, **wrong))
    with capture_logs() as logs, pytest.raises(KafkaUnavailable) as caught:
        ensure_topics(settings, [TopicSpec("strict", "events")], timeout_s=2)
    assert any("see kafka.options" in line["event"] for line in logs), logs
    assert not any(secret in f"{caught.value}{logs}" for secret in (PASSWORD, "guessed"))


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SSL"])
def test_a_wait_with_a_wrong_password_ends_and_says_so(broker: StrictBroker, protocol: str, tmp_path: Path) -> None:
    """It took it for an outage, and waited for five minutes."""
    strangers = {"ssl.ca.location": str(certificate(tmp_path, "stranger").ca_file)}
    wrong = strangers if protocol == "SSL" else {"sasl.password": "guessed"}
    settings = KafkaSettings.model_validate(broker.settings(protocol, **wrong))
    with pytest.raises(LoginRefused, match=r"does not let this client in: .*; mend kafka\.options"):
        Wait(settings, Generation("g"), dict, timeout_s=60, answer_s=1).run()


def test_nothing_of_what_is_deleted_is_left(pipeline: Pipeline, kafka: KafkaSettings, folder: Path) -> None:
    _plant(pipeline)
    marks = {
        "the post's text": [POST_TEXT.encode()],
        "the member's headline": [HEADLINE.encode()],
        "the post's vector": _as_stored(_vector(pipeline, "post", "planted")),
        "the member's vector": _as_stored(_vector(pipeline, "member", "leaver")),
        "the member's waiting action": [struct.pack(">Q", DWELL_MS)],
    }
    # Else it would prove nothing that they are not found later.
    places = {name: _places(folder, forms) for name, forms in marks.items()}
    assert {"contexts-post-changelog", "post-contexts", "contexts-member-changelog", "member-contexts"} <= (
        places["the post's text"]
    )
    assert {"contexts-member-changelog", "member-contexts"} <= places["the member's headline"]
    assert "contexts-post-changelog" in places["the member's waiting action"]
    in_rows = "the post's text", "the member's headline", "the member's waiting action"
    assert all("rows" in places[name] for name in in_rows), places
    assert all("cold" in places[name] for name in ("the post's vector", "the member's vector")), places
    embedding_topics = [spec.name for spec in generation_topics(pipeline.instance.generation)]
    assert embedding_topics[0] in places["the post's vector"]
    assert embedding_topics[1] in places["the member's vector"]

    pipeline.ingest([post_deleted("planted")])
    pipeline.ingest([member_deleted("leaver")])
    pipeline.wait()
    # As said, and a little for the broker's rounds and a busy machine. Nothing more is sent: the topics are quiet.
    with suppress(AssertionError):
        until(lambda: not _left(folder, marks), "every file to be free of it", 1.5 * ERASE_WITHIN_S, every_s=1.0)
    assert _left(folder, marks) == {}
    assert _in_records(
        kafka, pipeline.instance.generation, [form for forms in marks.values() for form in forms]
    ) <= set(RAW)
    # What stays: raw events until their retention, as the README says; and what was not deleted.
    assert _places(folder, marks["the post's text"]) == {topics.POSTS}
    assert _places(folder, marks["the member's headline"]) == {topics.MEMBERS}
    assert "history of a stayer" in str(pipeline.ask("get", "member", "stayer")["context"])


def _plant(pipeline: Pipeline) -> None:
    """The text in its post, in its author's history and in another member's; the headline in a profile; an activity of
    the leaver that waits for its post, and one that counts."""
    pipeline.ingest(
        [
            member_updated("leaver", headline=f"keeper of the {HEADLINE}"),
            member_updated("stayer", headline="somebody else"),
            post_created("planted", f"once upon a time a {POST_TEXT} sang", author_id="author"),
            post_created("kept", "history of a stayer", author_id="author"),
            activity("leaver", "planted"),
            activity("leaver", "not-there-yet", "dwell", dwell_ms=DWELL_MS),
            activity("stayer", "planted", "share"),
            activity("stayer", "kept"),
        ]
    )
    pipeline.wait()
    history = pipeline.ask("get", "member", "stayer")["context"]["history"]
    assert POST_TEXT in str(history), "the text must be in another member's history"


def _vector(pipeline: Pipeline, kind: str, entity_id: str) -> list[float]:
    (line,) = pipeline.lines("vectors", kind, entity_id)
    vector: list[float] = line["vector"]
    return vector


def _as_stored(vector: list[float]) -> list[bytes]:
    """In a record and in the engine's files, and in the engine's log (CBOR, where each number has its own mark)."""
    plain = np.array(vector, "<f4").tobytes()
    logged = b"".join(b"\xfa" + struct.pack(">f", number) for number in vector[:4])
    return [plain[:64], logged]


def _left(folder: Path, marks: Mapping[str, list[bytes]]) -> dict[str, set[str]]:
    """What was deleted and where it still is, but for what the README says."""
    left = {name: _places(folder, forms) - set(RAW) for name, forms in marks.items()}
    return {name: places for name, places in left.items() if places}


def _places(folder: Path, forms: list[bytes]) -> set[str]:
    """The topics and folders whose files hold any of the forms."""
    # Not `rglob`, which fails where a folder goes away meanwhile; `walk` leaves it out.
    files = (Path(parent) / name for parent, _, names in os.walk(folder) for name in names)
    return {_place(*file.relative_to(folder).parts) for file in files if _holds(file, forms)}


def _place(first: str, *rest: str) -> str:
    if rest[:1] == ("log",):
        return rest[1].rpartition("-")[0]
    return rest[0] if first == "data" else first


def _holds(file: Path, forms: list[bytes]) -> bool:
    """False for one that is gone meanwhile."""
    # The broker's indexes hold offsets and times, and are large files of nothing.
    if file.suffix in (".index", ".timeindex"):
        return False
    # Read, not mapped: a file may be cut short meanwhile. What lies across two pieces is looked for in both.
    overlap = max(map(len, forms)) - 1
    piece = b""
    try:
        with file.open("rb") as opened:
            while more := opened.read(_PIECE_BYTES):
                piece = piece[-overlap:] + more
                if any(form in piece for form in forms):
                    return True
    except OSError:
        pass
    return False


def _in_records(kafka: KafkaSettings, generation: Generation, forms: list[bytes]) -> set[str]:
    """The topics with a record that holds any of the forms, as a reader gets it."""
    names = [spec.name for spec in (*core_topics(), *generation_topics(generation))]
    return {
        name
        for name in names
        for record in read_topic(kafka, name)
        if any(form in (record.value() or b"") for form in forms)
    }
