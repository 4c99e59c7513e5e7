"""Mends the log of the generations: writes the last good record of a damaged key again, as the next act would, before
compaction removes it.

Whoever writes to this log fences an operator who is within an act. So it is done only where it helps: the last good
record is known; the damage was there at the look before too, so that no act came meanwhile; and no newer version of
nearline has written here, whose records may only look damaged to this one.
"""

from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Gauge

from schemas.generations import key_of
from streams.generations.follower import GenerationsFollower
from streams.generations.log import change_generations
from streams.generations.state import Damage
from streams.kafka.forms import refuse_newer_forms
from streams.settings import KafkaSettings

MEND_EVERY_S: Final = 10.0

log = structlog.get_logger(__name__)


class LogMender:
    """Call `look` again and again, from one thread."""

    def __init__(self, kafka: KafkaSettings, follower: GenerationsFollower, registry: CollectorRegistry) -> None:
        self._kafka = kafka
        self._follower = follower
        self._seen: tuple[Damage, ...] = ()
        Gauge(
            "nearline_generations_damaged_records",
            "Records of the topic generations that are refused, so that what they should say is not known",
            registry=registry,
        ).set_function(lambda: len(follower.damages))

    def look(self) -> None:
        """Waits for the broker. Raises StreamsError, also if an operator acts at the same time, and NewerForm. It is
        safe to repeat, also by several monitors: who is fenced finds nothing to mend at the next look."""
        state, damages = self._follower.current(), self._follower.damages
        before, self._seen = self._seen, damages
        if state is None or not state.last_good or not damages == state.damages == before:
            return
        refuse_newer_forms(self._kafka)
        change_generations(self._kafka, lambda _: [])
        keys = [key_of(record).decode() for record in state.last_good]
        log.warning("the last good records were written again in place of damaged ones", keys=keys)
