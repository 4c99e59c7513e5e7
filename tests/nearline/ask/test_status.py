"""The status of an instance of which some parts do not answer."""

from pathlib import Path
from threading import Event
from typing import Any

import pytest

from nearline.ask import status as status_module
from nearline.ask.connections import Connections
from nearline.ask.standing import Standing
from nearline.ask.status import Sources, read_status
from nearline.ask.status_sources import sources_of_command
from nearline.errors import NotReady
from nearline.settings.instance import Instance
from nearline.settings.settings import Settings
from schemas.ids import Offset
from schemas.topics import CONTEXTS_GROUP, POST_VECTORS_GROUP, POSTS
from streams.errors import GenerationsDamaged
from streams.generations.state import Generations
from streams.operate.record_shares import RecordShares
from streams.settings import KafkaSettings
from tests.kit.data.embeddings import GENERATION
from tests.kit.data.generations import founded
from tests.kit.instances import NO_BROKER
from tests.kit.kafka.topics import produce


def _silent() -> Any:
    raise NotReady("it does not answer")


def test_while_the_broker_is_away_ages_are_those_that_the_monitor_knows() -> None:
    standing = Standing(
        frozenset([("broker", None)]), ["broker has stood still"], oldest_age_s={CONTEXTS_GROUP: {POSTS: 9.0}}
    )
    asked: list[str] = []

    def kafka() -> Any:
        asked.append("broker")
        return _silent()

    status = read_status(Sources(list, lambda: standing, GENERATION, False, kafka, _silent, _silent, _silent))
    ages_s = {stage.topic: stage.oldest_age_s for stage in status.stages if stage.group == CONTEXTS_GROUP}
    assert ages_s.pop(POSTS) == 9.0
    assert set(ages_s.values()) == {None}
    assert (status.ready, status.standing_still) == (False, ["broker has stood still"])
    assert "broker: not asked, because it does not answer the monitor" in status.problems
    assert not asked

    other = Standing(frozenset([("encode", GENERATION)]), ["encode has stood still"])
    status = read_status(Sources(list, lambda: other, GENERATION, False, kafka, _silent, _silent, _silent))
    assert "broker: it does not answer" in status.problems


def test_a_monitor_that_is_silent_leaves_time_for_the_lags() -> None:
    """Such as one whose name is looked up for as long as a resolver tries."""
    answered = Event()

    def standing() -> Standing:
        answered.wait()
        return Standing()

    sources = Sources(list, standing, GENERATION, False, _silent, _silent, _silent, _silent, standing_s=0.1)
    try:
        status = read_status(sources)
    finally:
        answered.set()
    assert "monitor: no answer in time" in status.problems
    assert "broker: it does not answer" in status.problems, "it was asked, and there was time for its answer"


def test_post_vectors_are_a_stage_where_they_are_written(tmp_path: Path) -> None:
    for written, rows in ((True, [("post-vectors", "post-embeddings.a-1", None)]), (False, [])):
        settings = Settings.model_validate({"data_dir": tmp_path, "encode": {"post_vectors": written}})
        connections = Connections(
            settings, lambda: Instance(1, NO_BROKER, "a-1", "", None, None, False, [], "2026-01-05T10:00:00Z")
        )
        sources = sources_of_command(connections)
        assert sources.post_vectors == written
        sources = sources._replace(generations=founded, kafka=_silent, hot=_silent, cold=_silent)
        stages = read_status(sources).stages
        assert [(row.stage, row.topic, row.lag) for row in stages if row.group == POST_VECTORS_GROUP] == rows


@pytest.mark.parametrize("last_good_is_known", [True, False])
def test_a_damaged_record_of_the_generations_is_named(last_good_is_known: bool) -> None:
    def generations() -> Generations:
        if not last_good_is_known:
            raise GenerationsDamaged("the record at offset 7 \x1b[2J is gone for good")
        return founded().with_message(b"pointer", b"???", Offset(7))

    status = read_status(Sources(list, Standing, GENERATION, False, _silent, generations, _silent, _silent))
    (problem,) = (each for each in status.problems if "the record at offset 7" in each)
    assert problem.isprintable()


@pytest.mark.broker
def test_lags_stay_in_offsets_where_their_records_are_not_counted_in_time(
    kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    produce(kafka, POSTS, 0, 3)
    never = Event()
    monkeypatch.setattr(status_module, "_RECORDS_S", 0.01)
    monkeypatch.setattr(RecordShares, "in_records", lambda *_: never.wait())
    try:
        status = read_status(
            Sources(list, Standing, GENERATION, False, lambda: kafka, _silent, _silent, _silent), budget_s=20.0
        )
    finally:
        never.set()
    (posts,) = (row for row in status.stages if (row.group, row.topic) == (CONTEXTS_GROUP, POSTS))
    assert posts.lag == 3
    assert not [problem for problem in status.problems if problem.startswith(("broker", "records"))]
