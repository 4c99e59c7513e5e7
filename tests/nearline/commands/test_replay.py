"""`nearline replay`: asks the running stages, says what it asks for, and waits for them."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas import topics
from schemas.contexts import encode_context
from schemas.embeddings import encode_embedding
from schemas.ids import MemberId, PostId
from streams.index.loop import IndexLoop
from streams.settings import IndexSettings, KafkaSettings
from tests.kit.commands import Commands, run_command
from tests.kit.data.contexts import post_context
from tests.kit.data.embeddings import GENERATION, member_embedding, post_embedding
from tests.kit.instances import InstanceWithoutStages, instance_without_stages
from tests.kit.kafka.topics import Sender, read_topic
from tests.kit.running import in_thread

pytestmark = pytest.mark.broker


@pytest.fixture
def place(kafka: KafkaSettings) -> Iterator[InstanceWithoutStages]:
    with instance_without_stages(str(kafka.bootstrap_servers)) as place:
        yield place


@pytest.fixture
def run(place: InstanceWithoutStages) -> Commands:
    return Commands(place.data_dir)


def send_contexts(kafka: KafkaSettings, *names: str) -> None:
    Sender(kafka).send(topics.POST_CONTEXTS, [(name, encode_context(post_context(post_id=name))) for name in names])


def asked(kafka: KafkaSettings, kind: str = "post", stage: str = "encode") -> list[str]:
    topic = topics.replay_requests(stage, kind, GENERATION)  # type: ignore[arg-type]
    return sorted((message.key() or b"").decode() for message in read_topic(kafka, topic))


def test_all_of_it_is_asked_for(kafka: KafkaSettings, run: Commands) -> None:
    send_contexts(kafka, "a", "b", "a")
    ran = run("replay", "encode")
    assert (ran.status, ran.out, ran.err) == (0, "2 posts and 0 members will be encoded again\n", "")
    assert asked(kafka) == ["a", "b"]


def test_by_time_and_kind(kafka: KafkaSettings, run: Commands) -> None:
    send_contexts(kafka, "a", "b")
    assert run("replay", "encode", "--since", "2999-01-01T00:00:00Z").out == (
        "0 posts and 0 members will be encoded again\n"
    )
    assert run("replay", "encode", "--until", "2020-01-01T00:00:00Z", "--only", "posts").out == (
        "0 posts will be encoded again\n"
    )
    assert asked(kafka) == []
    ran = run("replay", "encode", "--since", "2020-01-01T00:00:00Z", "--until", "2999-01-01T00:00:00Z")
    assert ran.out.startswith("2 posts ")
    assert run("replay", "index", "--only", "members").out == "0 members will be indexed again\n"


def test_by_ids_from_a_file_and_from_stdin(
    kafka: KafkaSettings, run: Commands, place: InstanceWithoutStages, tmp_path: Path
) -> None:
    send_contexts(kafka, "a", "b", "ü")
    file = tmp_path / "ids"
    file.write_text("a\nx\ny\n")
    ran = run("replay", "encode", "--ids", file)
    assert (ran.status, ran.out, ran.err) == (
        0,
        "1 post and 0 members will be encoded again\n",
        "2 ids are unknown: x, y\n",
    )
    piped = run_command(["replay", "encode", "--ids", "-", "--data-dir", place.data_dir], stdin="ü\nz\n")
    assert (piped.returncode, piped.stderr) == (0, "1 id is unknown: z\n")
    assert asked(kafka) == ["a", "ü"]
    file.write_text("".join(f"x{number}\n" for number in range(30)))
    assert run("replay", "encode", "--ids", file).err.endswith("and more\n")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--since", "yesterday"), "--since: 'yesterday' is not an RFC 3339 time such as 2026-01-05T10:00:00Z"),
        (("--until", "2026-01-05T10:00:00"), "--until: '2026-01-05T10:00:00' has no zone"),
        (
            ("--since", "2026-01-05T10:00:00Z", "--until", "2026-01-05T10:00:00Z"),
            "--until: it is not after --since, so nothing is between them; name a later time",
        ),
        (("--ids", "-", "--since", "2026-01-05T10:00:00Z"), "--ids: it does not go together with --since"),
        (("--only", "cats"), "'cats' is not one of 'posts', 'members'"),
        (("--ids", "/nowhere"), "/nowhere cannot be read"),
    ],
)
def test_what_cannot_be_meant_is_refused(run: Commands, arguments: tuple[str, ...], sentence: str) -> None:
    ran = run("replay", "index", *arguments)
    assert ran.status == 1
    assert sentence in ran.err


def test_it_waits_until_the_cold_tier_is_mended(kafka: KafkaSettings, place: InstanceWithoutStages) -> None:
    """As a user starts it, in a process of its own."""
    tier = place.retriever.cold.tier
    post, member = post_embedding("p1", 3), member_embedding("m1", 2)
    Sender(kafka).send(topics.post_embeddings(GENERATION), [("p1", encode_embedding(post))])
    Sender(kafka).send(topics.member_embeddings(GENERATION), [("m1", encode_embedding(member))])
    with in_thread(IndexLoop(kafka, IndexSettings(), tier, GENERATION, 3600).run):
        assert _replay_index(place).startswith("1 post and 1 member will be indexed again\nall of it is searchable")
        (stored,) = tier.posts([PostId("p1")], with_vectors=True)
        tier._posts[PostId("p1")] = stored._replace(vector=-stored.vector)
        del tier._members[MemberId("m1")], tier._written["member", "m1"]
        _replay_index(place)
    (mended,), (back,) = tier.posts([PostId("p1")], with_vectors=True), tier.members([MemberId("m1")])
    assert mended.vector.tobytes() == post.vector
    assert back.vector.tobytes() == member.vector


def _replay_index(place: InstanceWithoutStages) -> str:
    command = [sys.executable, "-m", "nearline", "replay", "index", "--wait", "--data-dir", str(place.data_dir)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout
