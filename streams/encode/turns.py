"""Gives the encoder a limited number of contexts at once: a *turn*. Several loops share one encoder, and none of them
may keep it for long.

Knows contexts and an encoder. Knows nothing of records.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, wait
from threading import Event
from typing import Any, Final, Protocol

import structlog

from encoders.errors import DeviceFull, Outcome
from schemas.contexts import Context, MemberContext, PostContext
from schemas.ids import Kind
from streams.encode.metrics import EncodeMetrics
from streams.errors import Stopped
from streams.kafka.heartbeat import Beat, no_beat

TURN_S: Final[dict[Kind, float]] = {"post": 1.0, "member": 0.25}
"""How long a turn with new contexts may keep the device. While both kinds have a backlog, members get one turn after
every two turns of posts. That is a ninth of the time: a flood of members does not delay new posts, and still gets
through."""
_MIN_TURN: Final[dict[Kind, int]] = {"post": 32, "member": 1}
"""Contexts of a turn, at least. With a slow model 32 posts take longer than TURN_S, but smaller turns would be slower
still, because each turn reads all weights of the model. One member may be fifty texts."""
_FIRST_TURN: Final = 8
_BEAT_EVERY_S: Final = 1.0
_FULL_PAUSE_S: Final = 1.0
"""Between two tries of a turn while others hold the memory of the device."""

log = structlog.get_logger()

_TurnResult = tuple[list[Outcome], float]
"""The outcomes, and the seconds that the device took for them."""


class Prepared(Protocol):
    """Contexts that are ready for the device."""

    device_s: float
    """How long the device worked on them. Set once they have run."""


class StageEncoder(Protocol):
    """What the stage asks of an encoder. Two threads call it at the same time.

    It returns one outcome per context, in order: a vector, an Unencodable, or None if there is nothing to encode.
    DeviceFull means that others hold the memory of the device: the turn is tried again until there is some. Any other
    exception means that the infrastructure failed, and ends the process.
    """

    def prepare_posts(self, contexts: Sequence[PostContext]) -> Any: ...

    def prepare_members(self, contexts: Sequence[MemberContext]) -> Any: ...

    def prepare_post_texts(self, contexts: Sequence[PostContext]) -> Any:
        """For the vectors of the posts' texts alone."""
        ...

    def run(self, prepared: Any) -> list[Outcome]:
        """`prepared` comes from one of the other three."""
        ...


class EncodeTurns:
    """The turns of one loop, for contexts of one kind. The loop's thread owns it."""

    def __init__(
        self,
        kind: Kind,
        encoder: StageEncoder,
        device: Executor,
        stop: Event,
        *,
        metrics: EncodeMetrics,
        turn_s: float,
        beat: Beat = no_beat,
        texts_alone: bool = False,
    ) -> None:
        """`turn_s` is how long one turn may keep the device. `beat` is called every second while a turn lasts: with a
        large model that may be minutes. `texts_alone`: of posts only their texts are encoded."""
        self.kind = kind
        prepare_posts = encoder.prepare_post_texts if texts_alone else encoder.prepare_posts
        self._prepare: Callable[[Sequence[Context]], Prepared] = (
            prepare_posts if kind == "post" else encoder.prepare_members  # type: ignore[assignment]
        )
        self._run = encoder.run
        self._device = device
        self._stop = stop
        self._metrics = metrics
        self._beat = beat
        self._turn_s = turn_s
        self._min_turn = _MIN_TURN[kind]
        self.turn_contexts = max(_FIRST_TURN, self._min_turn)
        """How many contexts the device is expected to encode in the time of one turn."""

    def encode(self, contexts: Sequence[Context]) -> list[Outcome]:
        """After each turn the encoder may serve another loop. Raises Stopped between two turns."""
        outcomes: list[Outcome] = []
        while len(outcomes) < len(contexts):
            self._leave_if_stopped()
            part = contexts[len(outcomes) : len(outcomes) + self.turn_contexts]
            turn_outcomes, device_s = self._take_turn(part)
            outcomes += turn_outcomes
            self._adapt(len(part), device_s)
        return outcomes

    def _take_turn(self, contexts: Sequence[Context]) -> _TurnResult:
        """Waits until the device has memory. Raises Stopped."""
        while True:
            try:
                return self._wait_for(self._device.submit(self._turn, contexts, time.perf_counter()))
            except DeviceFull as error:
                log.warning("the device is full; its turn is tried again", kind=self.kind, error=str(error))
            self._beat()
            self._stop.wait(_FULL_PAUSE_S)
            self._leave_if_stopped()

    def _leave_if_stopped(self) -> None:
        if self._stop.is_set():
            raise Stopped("the encode stage was stopped within a batch")

    def _wait_for(self, turn: Future[_TurnResult]) -> _TurnResult:
        while not wait([turn], _BEAT_EVERY_S).done:
            self._beat()
        return turn.result()

    def _turn(self, contexts: Sequence[Context], submitted_at: float) -> _TurnResult:
        """Runs in one of the encoder's threads."""
        if self._stop.is_set():
            raise Stopped("the encode stage was stopped before a turn")
        began = time.perf_counter()
        prepared = self._prepare(contexts)
        self._metrics.turn(self.kind, began - submitted_at, time.perf_counter() - began)
        return self._run(prepared), prepared.device_s

    def _adapt(self, num_contexts: int, device_s: float) -> None:
        """Keeps turns near their time, whatever the model, the device and the texts."""
        if device_s > self._turn_s:
            self.turn_contexts = max(self._min_turn, int(num_contexts * self._turn_s / device_s))
        elif num_contexts == self.turn_contexts and device_s < self._turn_s / 2:
            self.turn_contexts *= 2
