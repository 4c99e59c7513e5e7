"""Puts the process of the autopilot together: how it reaches the parts that it measures, and how often it looks.

What it decides and does is in `nearline/autopilot/`, which loads what the gate needs, so it is imported inside.
"""

from collections.abc import Callable
from functools import partial
from threading import Event
from typing import TYPE_CHECKING

import structlog

from nearline.settings.settings import Settings
from nearline.up.residence import Run

if TYPE_CHECKING:
    from schemas.generations import Gate, GenerationRecord
    from streams.generations.state import Generations

log = structlog.get_logger(__name__)


def build_autopilot(settings: Settings, report_started: Callable[[], None]) -> Run:
    """`report_started` is called when it begins to look."""
    from nearline.ask.connections import Connections
    from nearline.autopilot.metrics import AutopilotMetrics
    from nearline.autopilot.pilot import Pilot
    from nearline.gate.gate import measure
    from nearline.gate.recorded import recorded_feed
    from nearline.settings.instance import read_instance
    from nearline.up.metrics import process_registry, served_metrics
    from nearline.up.names import AUTOPILOT
    from nearline.up.room_beside import refuse_build_without_room
    from streams.kafka.periodic import repeating

    connections = Connections(settings, lambda: read_instance(settings.data_dir))
    kafka = connections.kafka

    def measured(state: "Generations", record: "GenerationRecord") -> "Gate":
        def begins(name: str) -> None:
            log.info("measuring", check=name, generation=record.id)

        return measure(connections, state, record, lambda: recorded_feed(kafka, settings.rules), begins)

    registry = process_registry()
    refuse = partial(refuse_build_without_room, connections)
    pilot = Pilot(settings, kafka, measured, refuse, metrics=AutopilotMetrics(registry))

    def look() -> None:
        pilot.look()

    def run(stop: Event) -> None:
        # In a thread that may be left behind: a gate takes minutes, and is run again after the next start.
        with (
            served_metrics(AUTOPILOT, settings.data_dir, settings.autopilot.metrics_host, registry),
            repeating("autopilot", settings.autopilot.look_every_s, look),
        ):
            report_started()
            stop.wait()

    return run
