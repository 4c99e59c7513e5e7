"""The trending stage, on Faust: an agent that counts activity and a timer that writes each partition's top list.

Approximate on purpose: a crash may cost or repeat some events of scores that decay anyway. Whatever goes wrong ends the
process; the next one goes on from the lists that were written last.
"""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, NoReturn

import structlog

from schemas import topics
from schemas.errors import BadRecord
from schemas.events import Activity, decode_event, event_time_us
from schemas.ids import Micros, Millis, Partition, PostId
from schemas.times import now_us
from schemas.trending import encode_trending
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
from streams.trending.scores import TrendingScores

log = structlog.get_logger()

BATCH_EVENTS: Final = 1000
BATCH_S: Final = 0.2
STALLED_LOOKS: Final = 6
"""Without a commit for so long, while there is something to read, the process leaves."""
WATCH_EVERY_S: Final = 10.0
STOP_S: Final = 10.0
EXIT_STATUS: Final = 70

Report = Callable[[Exception], None]


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
) -> None:
    """Returns when `stop` is set and the lists are written. Where it cannot go on, it calls `report` with the reason
    and leaves the process. `folder` is Faust's own."""
    asyncio.run(TrendingStage(kafka, settings, folder, heartbeat, report).run(stop))


class TrendingStage:
    """Everything runs in one event loop; `activity` arrives through one agent for all partitions of this worker."""

    def __init__(
        self,
        kafka: KafkaSettings,
        settings: TrendingSettings,
        folder: Path,
        heartbeat: Heartbeat,
        report: Report = _log_error,
    ) -> None:
        self._heartbeat = heartbeat
        self._report = report
        self._kafka = kafka
        self._settings = settings
        self._scores: dict[Partition, TrendingScores] = {}
        self._deleted: dict[Place, int] = {}
        self._skipped = 0
        self._is_member = False
        commit_with_metadata(lambda place: commit_metadata(self._deleted.get(place, 0)))
        self._app = new_app(topics.TRENDING_GROUP, kafka, folder)
        # Raw: a codec's error would commit past the message, so we read it ourselves.
        self._lists = self._app.topic(topics.TRENDING, key_serializer="raw", value_serializer="raw")
        self._wire()

    def _wire(self) -> None:
        activity = self._app.topic(topics.ACTIVITY, key_serializer="raw", value_serializer="raw")

        @self._app.agent(activity, name="trending")
        async def count(stream: Any) -> None:
            # Not take(): it acknowledges a batch even when the body raises.
            async for events in stream.noack_take(BATCH_EVENTS, within=BATCH_S):
                with self._no_way_on("counting activity"):
                    await self._take_over({Partition(event.message.partition) for event in events})
                    for event in events:
                        self._count(event.message)
                    for event in events:
                        await stream.ack(event)

        async def write() -> None:
            with self._no_way_on("writing the trending lists"):
                await self._write_lists()

        self._app.timer(self._settings.interval_s)(write)

        @self._app.on_partitions_assigned.connect
        async def assigned(*arguments: Any, **_: Any) -> None:
            _sender, assigned = arguments
            self._is_member = True
            self._keep({Partition(place.partition) for place in assigned})
            self._heartbeat.owns([Place(topics.ACTIVITY, Partition(place.partition)) for place in assigned])

        @self._app.on_partitions_revoked.connect
        async def revoked(*_: Any, **__: Any) -> None:
            """All of them, before every rebalance; also before the first, when no group has let us in yet."""
            if self._is_member:
                self._heartbeat.owns(())

    async def run(self, stop: threading.Event) -> None:
        watch = CommitWatch(self._kafka, topics.TRENDING_GROUP, STALLED_LOOKS)
        self._heartbeat.start()
        with self._no_way_on("running Faust"):
            self._app.finalize()
            await self._app.start()
            await self._until(stop, watch)
            await self._write_lists()
            await self._stop_app()
        watch.close()

    async def _until(self, stop: threading.Event, watch: CommitWatch) -> None:
        """Looks after the app from outside: Faust may stand still, or be broken inside, and say nothing."""
        watch_at = time.monotonic() + WATCH_EVERY_S
        while not stop.is_set():
            if self._app.crashed:
                self._leave(_crash_reason(self._app), "running Faust")
            if time.monotonic() >= watch_at:
                await self._look(watch)
                watch_at = time.monotonic() + WATCH_EVERY_S
            self._heartbeat.turn()
            await asyncio.sleep(0.1)

    async def _look(self, watch: CommitWatch) -> None:
        own = [Place(topics.ACTIVITY, partition) for partition in self._scores]
        try:
            stalled = await asyncio.to_thread(watch.stalled, own)
        except StreamsError as error:
            log.warning("whether trending moves is not known", error=str(error))
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
    def _no_way_on(self, doing: str) -> Iterator[None]:
        """An exception that leaves an agent freezes its commits and hangs the stop, so the process leaves at once."""
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

    def _keep(self, partitions: Collection[Partition]) -> None:
        """A rebalance hands out everything anew; what stays here keeps its scores."""
        self._scores = {partition: scores for partition, scores in self._scores.items() if partition in partitions}

    async def _take_over(self, partitions: Collection[Partition]) -> None:
        """Goes on from the list that was written last. Done where the events arrive, because they may arrive before
        Faust has told anybody that a partition was assigned."""
        assigned = {place.partition for place in self._app.consumer.assignment()}
        new = [partition for partition in partitions if partition in assigned and partition not in self._scores]
        if not new:
            return
        stored = await asyncio.to_thread(last_lists, self._kafka, new)
        starts = await asyncio.to_thread(self._find_starts, [Place(topics.ACTIVITY, partition) for partition in new])
        # Before anything of them is acknowledged: from then on what is committed says this too.
        self._deleted.update({place: start.deleted for place, start in starts.items()})
        for partition in new:
            self._scores[partition] = TrendingScores(partition, self._settings)
        for each in stored:
            self._scores[Partition(each.partition)].load(each)

    def _find_starts(self, places: list[Place]) -> dict[Place, ResumePoint]:
        """Faust goes on there by itself; this says what it passes over."""
        with closing(OffsetReader(self._kafka, CALL_TIMEOUT_S)) as reader:
            committed = reader.progress(topics.TRENDING_GROUP, places)
        return find_resume_points(self._kafka, topics.TRENDING_GROUP, committed, CALL_TIMEOUT_S)

    def _count(self, message: Any) -> None:
        scores = self._scores.get(message.partition)
        if scores is None:
            return  # taken away meanwhile; whoever has it now reads it too
        timestamp_ms = Millis(round(message.timestamp * 1000))
        try:
            event = decode_event(topics.ACTIVITY, message.key, message.value, timestamp_ms)
        except BadRecord:
            # The context stage reads the same record and makes it a dead letter, once.
            self._skipped += 1
            return
        if isinstance(event, Activity):
            # A time in the future would outweigh everything that is now.
            at_us = Micros(min(event_time_us(event), timestamp_ms * 1000))
            scores.add(PostId(event.post_id), event.action, at_us)

    async def _write_lists(self) -> None:
        """Returns when the broker has them. A list that only time has changed is not written again."""
        now = now_us()
        # All at once: whatever awaits gives partitions time to come and go.
        lists = [scores.take_list(now) for scores in self._scores.values() if scores.changed]
        sent = [
            await self._lists.send(
                key=list_key(Partition(each.partition)), value=encode_trending(each), partition=each.partition
            )
            for each in lists
        ]
        for future in sent:
            await future
        if self._skipped:
            log.warning("activity that cannot be read was skipped", records=self._skipped)
            self._skipped = 0


def _crash_reason(app: Any) -> Exception:
    reason = app.crash_reason
    return reason if isinstance(reason, Exception) else TrendingStuck(f"Faust crashed: {reason!r}")
