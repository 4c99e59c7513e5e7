"""The trending stage, on Faust: an agent that counts activity, and a timer that writes the top list of each partition.

Approximate on purpose: a crash may lose or repeat a few events, and scores decay anyway. Every error ends the process.
The next process goes on from the lists that were written last.
"""

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

import structlog
from prometheus_client import CollectorRegistry

from schemas import topics
from schemas.errors import BadRecord
from schemas.events import Activity, decode_event, event_time_us
from schemas.ids import Micros, Millis, Partition, PostId
from schemas.times import now_us
from schemas.trending import TrendingList, encode_trending
from streams.errors import StreamsError, TrendingStuck
from streams.kafka.commit_watch import CALL_TIMEOUT_S, CommitWatch
from streams.kafka.deleted_unread import commit_metadata
from streams.kafka.heartbeat import NO_HEARTBEAT, Heartbeat
from streams.kafka.offsets import OffsetReader
from streams.kafka.records import Place
from streams.kafka.resume_points import ResumePoint, find_resume_points
from streams.settings import KafkaSettings, TrendingSettings
from streams.trending.faust_app import new_app
from streams.trending.faust_commits import commit_with_metadata
from streams.trending.lists import last_lists, list_key
from streams.trending.metrics import Outcome, TrendingMetrics
from streams.trending.scores import TrendingScores

log = structlog.get_logger()

BATCH_EVENTS: Final = 1000
BATCH_S: Final = 0.2
STALLED_LOOKS: Final = 6
"""If the group has something to read and commits nothing for this many looks, the process leaves."""
WATCH_EVERY_S: Final = 10.0
STOP_S: Final = 10.0
EXIT_STATUS: Final = 70

Report = Callable[[Exception], None]
"""Called with the reason right before the process leaves."""


def _log_error(error: Exception) -> None:
    log.error("trending cannot go on", exc_info=error)


def run_trending(
    kafka: KafkaSettings,
    settings: TrendingSettings,
    folder: Path,
    stop: threading.Event,
    *,
    heartbeat: Heartbeat = NO_HEARTBEAT,
    report: Report = _log_error,
    metrics: TrendingMetrics | None = None,
) -> None:
    """Returns when `stop` is set and the lists are written. After an error it calls `report` and leaves the process.
    `folder` is for Faust alone."""
    asyncio.run(TrendingStage(kafka, settings, folder, heartbeat, report, metrics=metrics).run(stop))


class TrendingStage:
    """Everything runs in one event loop. One agent gets the activity of all partitions of this worker."""

    def __init__(
        self,
        kafka: KafkaSettings,
        settings: TrendingSettings,
        folder: Path,
        heartbeat: Heartbeat,
        report: Report = _log_error,
        *,
        metrics: TrendingMetrics | None = None,
    ) -> None:
        self._heartbeat = heartbeat
        self._report = report
        self._metrics = metrics or TrendingMetrics(CollectorRegistry())
        self._kafka = kafka
        self._settings = settings
        self._scores: dict[Partition, TrendingScores] = {}
        self._num_deleted_unread: dict[Place, int] = {}
        self._skipped = 0
        self._has_joined_group = False
        commit_with_metadata(lambda place: commit_metadata(self._num_deleted_unread.get(place, 0)))
        self._app = new_app(topics.TRENDING_GROUP, kafka, folder)
        # Raw, and decoded by us: if a Faust codec raises, Faust commits past the message.
        self._lists = self._app.topic(topics.TRENDING, key_serializer="raw", value_serializer="raw")
        self._wire()

    def _wire(self) -> None:
        activity = self._app.topic(topics.ACTIVITY, key_serializer="raw", value_serializer="raw")

        @self._app.agent(activity, name="trending")
        async def count(stream: Any) -> None:
            # Not `take`, which acknowledges a batch even when the body raises.
            async for events in stream.noack_take(BATCH_EVENTS, within=BATCH_S):
                with self._leave_on_error("counting activity"):
                    await self._take_over({Partition(event.message.partition) for event in events})
                    self._metrics.read(Counter(self._count(event.message) for event in events))
                    for event in events:
                        await stream.ack(event)

        async def write() -> None:
            with self._leave_on_error("writing the trending lists"):
                await self._write_lists()

        self._app.timer(self._settings.interval_s)(write)

        @self._app.on_partitions_assigned.connect
        async def assigned(*arguments: Any, **_: Any) -> None:
            _sender, assigned = arguments
            self._has_joined_group = True
            self._drop_lost({Partition(place.partition) for place in assigned})
            self._heartbeat.owns([Place(topics.ACTIVITY, Partition(place.partition)) for place in assigned])

        @self._app.on_partitions_revoked.connect
        async def revoked(*_: Any, **__: Any) -> None:
            """Faust revokes all partitions before every rebalance, and also before the group has let us in at all."""
            if self._has_joined_group:
                self._heartbeat.owns(())

    async def run(self, stop: threading.Event) -> None:
        watch = CommitWatch(self._kafka, topics.TRENDING_GROUP, STALLED_LOOKS)
        self._heartbeat.start()
        with self._leave_on_error("running Faust"):
            self._app.finalize()
            await self._app.start()
            await self._watch_until(stop, watch)
            await self._write_lists()
            await self._stop_app()
        watch.close()

    async def _watch_until(self, stop: threading.Event, watch: CommitWatch) -> None:
        """Watches the app from outside, because Faust may stand still or be broken inside without any sign."""
        watch_at = time.monotonic() + WATCH_EVERY_S
        while not stop.is_set():
            if self._app.crashed:
                self._leave(_crash_reason(self._app), "running Faust")
            if time.monotonic() >= watch_at:
                await self._leave_if_stalled(watch)
                watch_at = time.monotonic() + WATCH_EVERY_S
            self._heartbeat.loop_turned()
            await asyncio.sleep(0.1)

    async def _leave_if_stalled(self, watch: CommitWatch) -> None:
        owned = [Place(topics.ACTIVITY, partition) for partition in self._scores]
        try:
            stalled = await asyncio.to_thread(watch.stalled, owned)
        except StreamsError as error:
            log.warning("the broker does not say whether trending makes progress", error=str(error))
            return
        if stalled:
            waited_s = STALLED_LOOKS * WATCH_EVERY_S
            self._leave(TrendingStuck(f"no commit for {waited_s:.0f} s on {stalled}"), "watching Faust")

    async def _stop_app(self) -> None:
        try:
            await asyncio.wait_for(self._app.stop(), STOP_S)
        except TimeoutError:
            self._leave(TrendingStuck(f"Faust did not stop within {STOP_S:.0f} s"), "stopping Faust")

    @contextmanager
    def _leave_on_error(self, doing: str) -> Iterator[None]:
        """Ends the process if the block raises. No exception may reach Faust, as an example shows.

        `_count` raises at offset 70 of partition 2. If the exception left the agent, Faust would start a new agent and
        read on, but never commit past offset 70. The stage would look alive, and every restart would count everything
        from there again. When asked to stop, Faust would wait for offset 70 to be acknowledged, and hang. So the
        process leaves at once, before it acknowledges anything of the batch, and is started again.
        """
        try:
            yield
        except Exception as error:
            self._leave(error, doing)

    def _leave(self, reason: Exception, doing: str) -> NoReturn:
        log.error("the trending stage leaves, to be started again", doing=doing, reason=repr(reason))
        try:
            self._report(reason)
        finally:
            os._exit(EXIT_STATUS)

    def _drop_lost(self, partitions: Collection[Partition]) -> None:
        """After a rebalance: keeps the scores of the partitions that are assigned again, and drops all others."""
        self._scores = {partition: scores for partition, scores in self._scores.items() if partition in partitions}

    async def _take_over(self, partitions: Collection[Partition]) -> None:
        """Loads the list that was written last for each partition that is new here. Done when events arrive, because
        they may arrive before Faust signals that their partition was assigned."""
        assigned = {place.partition for place in self._app.consumer.assignment()}
        new = [partition for partition in partitions if partition in assigned and partition not in self._scores]
        if not new:
            return
        lists = await asyncio.to_thread(last_lists, self._kafka, new)
        resume_points = await asyncio.to_thread(
            self._find_resume_points, [Place(topics.ACTIVITY, partition) for partition in new]
        )
        # Set before any event is acknowledged, so that every commit carries these counts as metadata.
        self._num_deleted_unread.update({place: resume.deleted for place, resume in resume_points.items()})
        for partition in new:
            self._scores[partition] = TrendingScores(partition, self._settings)
        for trending in lists:
            self._scores[Partition(trending.partition)].load(trending)

    def _find_resume_points(self, places: list[Place]) -> dict[Place, ResumePoint]:
        """Faust finds these offsets by itself. This only logs and counts the records that were deleted before them."""
        with closing(OffsetReader(self._kafka, CALL_TIMEOUT_S)) as reader:
            committed = reader.progress(topics.TRENDING_GROUP, places)
        return find_resume_points(self._kafka, topics.TRENDING_GROUP, committed, CALL_TIMEOUT_S)

    def _count(self, message: Any) -> Outcome:
        scores = self._scores.get(message.partition)
        if scores is None:
            return "revoked"
        timestamp_ms = Millis(round(message.timestamp * 1000))
        try:
            event = decode_event(topics.ACTIVITY, message.key, message.value, timestamp_ms)
        except BadRecord:
            # The context stage reads the same record too, and makes it a dead letter.
            self._skipped += 1
            return "unreadable"
        if not isinstance(event, Activity):
            return "weightless"
        # A time in the future would outweigh all current activity.
        at_us = Micros(min(event_time_us(event), timestamp_ms * 1000))
        return "counted" if scores.add(PostId(event.post_id), event.action, at_us) else "weightless"

    async def _write_lists(self) -> None:
        """Returns when the broker has them. Skips the lists to which nothing was added since they were written."""
        now = now_us()
        # All lists are taken before the first `await`: during one, partitions may be added and removed.
        lists = [self._ranked(scores, now) for scores in self._scores.values() if scores.changed]
        sent = [
            await self._lists.send(
                key=list_key(Partition(trending.partition)),
                value=encode_trending(trending),
                partition=trending.partition,
            )
            for trending in lists
        ]
        for future in sent:
            await future
        self._metrics.published(len(lists))
        if self._skipped:
            log.warning("activity that cannot be read was skipped", records=self._skipped)
            self._skipped = 0

    def _ranked(self, scores: TrendingScores, now: Micros) -> TrendingList:
        began = time.perf_counter()
        trending = scores.take_list(now)
        self._metrics.ranked(time.perf_counter() - began)
        return trending


def _crash_reason(app: Any) -> Exception:
    reason = app.crash_reason
    return reason if isinstance(reason, Exception) else TrendingStuck(f"Faust crashed: {reason!r}")
