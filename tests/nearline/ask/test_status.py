"""The status of an instance of which some parts do not answer."""

from typing import Any

from nearline.ask.standing import Standing
from nearline.ask.status import Sources, read_status
from nearline.errors import NotReady
from schemas.topics import CONTEXTS_GROUP, POSTS
from tests.kit.data.embeddings import GENERATION


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

    status = read_status(Sources(list, lambda: standing, GENERATION, kafka, _silent, _silent, _silent))
    ages_s = {stage.topic: stage.oldest_age_s for stage in status.stages if stage.group == CONTEXTS_GROUP}
    assert ages_s.pop(POSTS) == 9.0
    assert set(ages_s.values()) == {None}
    assert (status.ready, status.standing_still) == (False, ["broker has stood still"])
    assert "broker: not asked, because it does not answer the monitor" in status.problems
    assert not asked

    other = Standing(frozenset([("encode", GENERATION)]), ["encode has stood still"])
    status = read_status(Sources(list, lambda: other, GENERATION, kafka, _silent, _silent, _silent))
    assert "broker: it does not answer" in status.problems
