"""What the log says of the generations and of the autopilot, for Prometheus. Pure."""

from collections.abc import Iterable

from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric

from streams.generations.acts import CANARY_ENDED
from streams.generations.state import Generations


def generation_metrics(state: Generations) -> Iterable[Metric]:
    info = InfoMetricFamily(
        "nearline_generation", "Generations that live, and what they are", labels=["generation", "state", "place"]
    )
    share = GaugeMetricFamily(
        "nearline_generation_canary_share",
        "The share of the members whom the generation answers as the canary",
        labels=["generation"],
    )
    ended = GaugeMetricFamily(
        "nearline_generation_canary_ended_timestamp_seconds",
        "When the generation was the canary and left its bounds, if nothing has been done about it since",
        labels=["generation"],
    )
    for record in state.live:
        info.add_metric([record.id, record.state, record.place or ""], {})
        if record.history and record.history[-1].what == CANARY_ENDED:
            ended.add_metric([record.id], record.history[-1].at.timestamp())
    if state.pointer is not None and state.pointer.canary is not None:
        share.add_metric([state.pointer.canary.generation], state.pointer.canary.share)
    return info, share, ended, _autopilot(state)


def _autopilot(state: Generations) -> Metric:
    """Nothing where the log was not read yet."""
    on = GaugeMetricFamily("nearline_autopilot_on", "1 while the autopilot is switched on")
    if state.autopilot is not None or state.pointer is not None:
        on.add_metric([], state.autopilot_is_on)
    return on
