"""This version goes on where the version before has stopped: on a data folder that it made, with a broker that starts
on that version's log. What a version may write is bounded by what the version before can read."""

import json
import math
import os
import tarfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import pytest

from contexts.cells import load_member, load_post
from contexts.settings import ContextRules
from indexer.cold.edge.tier import EdgeColdTier
from indexer.hot.tier import MatrixHotTier
from indexer.id_table import IdTable
from indexer.settings import ColdSettings, HotSettings
from nearline.broker.embedded import EmbeddedBroker
from nearline.settings.folder_forms import agree_on_folder_forms
from nearline.up.serving_package import ensure_core_topics
from retriever.feed.follower import CONSUMER_OVERRIDES
from retriever.feed.hot_feed import HotFeed
from retriever.feed.trending_lists import TrendingLists
from schemas import topics
from schemas.contexts import decode_post_context
from schemas.forms import IN_FOLDER, IN_KAFKA
from schemas.ids import Generation, MemberId, Partition, PostId
from schemas.stages import contexts_reads
from streams.contexts.restore import topic_ids
from streams.contexts.row_store import RowStore
from streams.contexts.rows_folder import rows_folder
from streams.contexts.stage import ContextStage
from streams.generations.last_state import last_state_file, remembered
from streams.generations.log import read_generations
from streams.index.loop import IndexLoop
from streams.kafka.clients import new_consumer
from streams.kafka.records import Place
from streams.kafka.sending import send_all
from streams.operate.republish import flush_record
from streams.settings import ContextsSettings, IndexSettings, KafkaSettings
from tests.conftest import QUICK_JVM
from tests.kit.data.events import activity, key_of, line, post_deleted
from tests.kit.folders import temporary_data
from tests.kit.kafka.brokers import RunningBroker
from tests.kit.kafka.groups import until_no_lag
from tests.kit.kafka.topics import Sender, read_topic
from tests.kit.running import in_thread
from tests.kit.waiting import until
from tests.upgrades.make_data_folder import EXPECTED

VERSION_BEFORE: Final = Path(__file__).parent / "data" / "3d38b92"
"""Its data folder, as a tar file, and the newest form of everything that it reads."""
DIMENSION: Final = 16
ALL: Final = HotSettings(window_s=math.inf, device="cpu")


class Before(NamedTuple):
    """What the version before has left."""

    data_dir: Path
    expected: Any

    @property
    def generation(self) -> Generation:
        return Generation(self.expected["generation"])


@pytest.fixture(scope="module")
def before() -> Iterator[Before]:
    with temporary_data("nearline-before-") as folder:
        with tarfile.open(VERSION_BEFORE.with_suffix(".tar.xz")) as packed:
            packed.extractall(folder, filter="data")
        data_dir = folder / "data"
        for compacted in data_dir.rglob("last-shed"):
            os.utime(compacted)  # as if it had stopped a moment ago: rows that nobody has opened for long are restored
        agree_on_folder_forms(data_dir)
        yield Before(data_dir, json.loads((data_dir / EXPECTED).read_text()))


@pytest.fixture(scope="module")
def kafka(before: Before) -> Iterator[KafkaSettings]:
    running = RunningBroker(EmbeddedBroker(before.data_dir / "kafka", jvm=QUICK_JVM))
    try:
        running.start()
        kafka = KafkaSettings(bootstrap_servers=running.bootstrap_servers, partitions=1)
        ensure_core_topics(kafka)
        yield kafka
    finally:
        running.stop()


def test_rows_and_counts_go_on(before: Before, kafka: KafkaSettings) -> None:
    with closing(_rows(before.data_dir, kafka, topics.POST_CHANGELOG)) as posts:
        row = load_post(PostId("p1"), posts.get)
        assert (posts.position > 0, row.state.counts["like"], "m2" in row.recipients.newest()) == (True, 3, True)
        waiting = load_post(PostId("not-here-yet"), posts.get).waiting_actions
        assert [action.activity.member_id for action in waiting] == ["m2"]
    with closing(_rows(before.data_dir, kafka, topics.MEMBER_CHANGELOG)) as members:
        history = load_member(MemberId("m2"), members.get).history
        assert len(history.entries()) == len(before.expected["members"]["m2"]["context"]["history"])

    reads = contexts_reads()
    stage = ContextStage(kafka, ContextsSettings(interval_s=0.01), ContextRules(), before.data_dir, "0")
    with in_thread(stage.run):
        likes = [activity(f"new-{number}", "p1", "like") for number in range(9)]
        Sender(kafka).send(topics.ACTIVITY, [(key_of(like), line(like)) for like in likes])
        until_no_lag(kafka, reads.group, reads.topics)
        send_all(kafka, [flush_record(Partition(0))])
        until_no_lag(kafka, reads.group, reads.topics)
    of_p1 = [record.value() or b"" for record in read_topic(kafka, topics.POST_CONTEXTS) if record.key() == b"p1"]
    newest = decode_post_context(of_p1[-1])
    was = before.expected["posts"]["p1"]["context"]
    assert (newest.text, newest.revision > was["revision"], newest.counts["like"]) == (was["text"], True, 12)


def test_the_cold_tier_is_opened(before: Before) -> None:
    folder = before.data_dir / "cold" / before.generation
    manifest = (folder / "cold.json").read_bytes()
    with closing(EdgeColdTier(folder, before.generation, DIMENSION, ColdSettings())) as tier:
        assert _live(tier) == _revisions(before.expected["cold"])
        for post_id, (vector,) in before.expected["vectors"].items():
            (stored,) = tier.posts([PostId(post_id)], with_vectors=True)
            assert stored is not None
            assert stored.vector is not None
            np.testing.assert_allclose(stored.vector, vector["vector"], atol=1e-6)
        assert tier.count("member") == len(before.expected["members"])
    assert (folder / "cold.json").read_bytes() == manifest, "the version before can open it again"


def test_the_snapshot_of_the_hot_tier_is_loaded(before: Before) -> None:
    tier = MatrixHotTier(DIMENSION, ALL, IdTable())
    (folder,) = (before.data_dir / "hot" / before.generation).iterdir()
    content = (folder / "hot.snapshot").read_bytes()
    moment = tier.load(folder)
    assert moment is not None
    assert _live(tier) == _revisions(before.expected["hot"])
    tier.save(folder, moment).result(20)
    first_line = content.partition(b"\n")[0]
    assert (folder / "hot.snapshot").read_bytes().partition(b"\n")[0] == first_line, "the version before can load it"


def test_the_log_of_the_generations_is_read(before: Before, kafka: KafkaSettings) -> None:
    state = read_generations(kafka)
    assert state.serving is not None
    assert (state.serving.id, state.damages) == (before.generation, ())
    remembered_state = remembered(last_state_file(before.data_dir))
    assert remembered_state is not None
    assert remembered_state.serving == state.serving


def test_forms_are_written_down_at_the_first_start(before: Before, kafka: KafkaSettings) -> None:
    written = {(record.key() or b"").decode(): int(record.value() or b"") for record in read_topic(kafka, topics.FORMS)}
    assert written == {kind: form.written for kind, form in IN_KAFKA.items()}
    assert json.loads((before.data_dir / "forms.json").read_text()).keys() == IN_FOLDER.keys()


def test_the_version_before_reads_all_that_this_one_writes() -> None:
    """A new form is read by one version, and written from the next one on. If this fails, write the form before, or
    commit the folder of a version that reads the new one."""
    newest = msgspec.json.decode(VERSION_BEFORE.with_suffix(".json").read_bytes(), type=dict[str, int])
    ours = {**IN_FOLDER, **IN_KAFKA}
    too_new = {kind: form.written for kind, form in ours.items() if form.written > newest.get(kind, 0)}
    assert too_new == {}
    assert {kind: form.newest for kind, form in ours.items() if form.newest < newest[kind]} == {}


def _rows(data_dir: Path, kafka: KafkaSettings, changelog: str) -> RowStore:
    folder = rows_folder(data_dir, "0")
    return RowStore(folder, Place(changelog, Partition(0)), topic_ids(kafka, [changelog])[changelog])


def _revisions(posts: list[dict[str, Any]]) -> dict[str, int]:
    return {post["post_id"]: post["revision"] for post in posts}


def test_all_but_the_topics_is_rebuilt(before: Before, kafka: KafkaSettings, tmp_path: Path) -> None:
    """What `docs/upgrades.md` says must be kept is enough: the topics, with a data folder in which nothing is."""
    with closing(_rows(before.data_dir, kafka, topics.POST_CHANGELOG)) as posts:
        row = load_post(PostId("p1"), posts.get)

    reads = contexts_reads()
    stage = ContextStage(kafka, ContextsSettings(interval_s=0.01), ContextRules(), tmp_path, "0")
    with in_thread(stage.run):
        late = post_deleted("p3")
        Sender(kafka).send(topics.POSTS, [(key_of(late), line(late))])
        until_no_lag(kafka, reads.group, reads.topics)
    with closing(_rows(tmp_path, kafka, topics.POST_CHANGELOG)) as posts:
        assert load_post(PostId("p1"), posts.get) == row

    folder, cold, hot = tmp_path / "cold", before.expected["cold"], MatrixHotTier(DIMENSION, ALL, IdTable())
    with closing(EdgeColdTier(folder, before.generation, DIMENSION, ColdSettings())) as tier:
        loop = IndexLoop(kafka, IndexSettings(), tier, before.generation, 3600)
        feed = HotFeed(
            lambda: new_consumer(kafka, "hot-feed", **CONSUMER_OVERRIDES),
            before.generation,
            hot,
            TrendingLists(),
            window_s=math.inf,
            stale_after_s=60,
        )
        feed.start()
        with closing(feed), in_thread(loop.run):
            until(lambda: _live(tier) == _revisions(cold), "the cold tier to hold the posts again")
            until(lambda: _live(hot) == _revisions(before.expected["hot"]), "the hot tier to hold the posts again")
            until(lambda: tier.count("member") == len(before.expected["members"]), "the members to be there again")


def _live(tier: EdgeColdTier | MatrixHotTier) -> dict[str, int]:
    return {post.post_id: post.revision for post in tier.scroll_posts()}
