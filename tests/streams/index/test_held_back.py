"""An index loop that others go before: what it does while it is held back, and when it goes on."""

import pytest

from schemas import topics
from streams.index import loop as index_loop
from tests.kit.journal_tier import JournalTier
from tests.kit.kafka.groups import until_workers_share
from tests.kit.kafka.stages import IndexLoopSetup
from tests.kit.running import RecordedHeartbeat, in_thread
from tests.kit.waiting import until

pytestmark = pytest.mark.broker


class SetPace:
    def __init__(self) -> None:
        self.is_open = False

    def may_read(self) -> bool:
        return self.is_open


@pytest.fixture
def _polls_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_loop, "POLL_HELD_BACK_S", 0.0)


@pytest.mark.usefixtures("_polls_at_once")
def test_it_stays_in_its_group_writes_nothing_and_says_that_it_is_alive(index: IndexLoopSetup) -> None:
    index.send_posts(range(120))
    pace, tier, heartbeat = SetPace(), JournalTier(index.journal), RecordedHeartbeat()
    with in_thread(index.loop(tier, may_read=pace.may_read, heartbeat=heartbeat).run):
        until_workers_share(index.kafka, topics.index_group(index.generation), 1)
        heartbeat.until_turned()
        assert heartbeat.beats.acquire(timeout=60)
        assert (tier.received, index.durable()) == ([], {})
        pace.is_open = True
        index.until_no_lag()
        pace.is_open = False
        # The loop may be within its last wait for a record, which it still takes.
        heartbeat.until_turned()
        written = len(tier.received)
        index.send_posts(range(120, 130))
        heartbeat.until_turned()
        assert len(tier.received) == written
        pace.is_open = True
        index.until_no_lag()
    assert index.durable() == {f"p{n}": (1, False) for n in range(130)}
    assert len(tier.received) == 130, "what a poll returned while it was held back came once"


@pytest.mark.parametrize("poll_after_s", [0.0, 600.0], ids=["polls", "never-polls"])
def test_stopped_while_it_is_held_back_it_leaves_everything_to_the_next_one(
    index: IndexLoopSetup, monkeypatch: pytest.MonkeyPatch, poll_after_s: float
) -> None:
    """Without a poll its partitions are still on their way to it when it closes."""
    monkeypatch.setattr(index_loop, "POLL_HELD_BACK_S", poll_after_s)
    index.send_posts(range(20))
    with in_thread(index.loop(JournalTier(index.journal), may_read=lambda: False).run):
        until_workers_share(index.kafka, topics.index_group(index.generation), 1)
    with in_thread(index.loop(JournalTier(index.journal)).run):
        index.until_no_lag()
    assert set(index.durable()) == {f"p{n}" for n in range(20)}


@pytest.mark.usefixtures("_polls_at_once")
def test_what_was_deleted_is_erased_also_while_it_is_held_back(index: IndexLoopSetup) -> None:
    tier = JournalTier(index.journal)
    with in_thread(index.loop(tier, may_read=lambda: False, sweep_every_s=0.01).run):
        until(lambda: tier.swept > 1, "two sweeps")
