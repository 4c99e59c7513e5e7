"""What the autopilot does, for Prometheus. Whether it is on the monitor says: this process runs only while it is."""

from itertools import product
from typing import Final, Literal, get_args

from prometheus_client import CollectorRegistry, Counter

from nearline.autopilot.decision import What

Outcome = Literal["done", "refused", "hindered", "error"]
"""refused: the log says something else by now. hindered: it is not possible now. error: the broker failed, for example;
of such an act nothing is known. What is not done is decided anew at the next look."""

_ACTS: Final = [what for what in get_args(What) if what != "wait"]


class AutopilotMetrics:
    """One thread tells what it did."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._acts = Counter(
            "nearline_autopilot_acts",
            "Acts that came next, by outcome: done, refused, hindered or error",
            ["act", "outcome"],
            registry=registry,
        )
        # Acts are rare: of a series that begins with its first act Prometheus would see no increase.
        for act, outcome in product(_ACTS, get_args(Outcome)):
            self._acts.labels(act, outcome)

    def acted(self, act: str, outcome: Outcome) -> None:
        self._acts.labels(act, outcome).inc()
