"""The generations that are open, who asks them, and which one is asked.

The pointer's move takes effect between two questions: each question is given its generation under the lock, and keeps
it to its end. The pointer is followed only to a generation that is whole here; until then the one before it answers.
Knows neither how a generation is opened nor what it answers.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Condition, Lock
from typing import NamedTuple

import structlog

from retriever.errors import RequestRefused, RetrieverUnavailable
from retriever.generations.opening import OpenGeneration
from retriever.generations.roles import Roles, is_in_share
from schemas.api import ProblemCode
from schemas.generations import Canary, State
from schemas.ids import Generation, MemberId

_log = structlog.get_logger(__name__)


class Slot:
    """One open generation. `Slots` changes it, under its lock."""

    def __init__(self, generation: Generation, opened: OpenGeneration) -> None:
        self.generation = generation
        self.opened = opened
        self.is_whole = False
        """Once it could give whole answers it is asked. What is missing later is said in its answers."""
        self.num_asking = 0


class Trial(NamedTuple):
    """A canary, and the generation that it is compared with."""

    canary: Canary
    serving: Generation


class Asked(NamedTuple):
    """What one question was given."""

    slot: Slot
    trial: Trial | None = None
    """Of a question that either of the two might have been given."""

    @property
    def is_canary(self) -> bool:
        return self.trial is not None and self.trial.canary.generation == self.slot.generation


class Wish(NamedTuple):
    """Of a question: the generation that it names, and the member who asks."""

    generation: str | None = None
    member_id: MemberId | None = None


class Slots:
    """Any thread may call the methods."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._unasked = Condition(self._lock)
        """Notified when a question to one that is to be closed has ended."""
        # All of the following is read and changed under the lock.
        self._roles: Roles | None = None
        self._slots: dict[Generation, Slot] = {}
        self._closing: set[Generation] = set()
        self._serving: Slot | None = None
        self._trial: Trial | None = None

    def take(self, roles: Roles) -> None:
        """What the log says now."""
        with self._lock:
            self._roles = roles
            self._point()

    def add(self, slot: Slot) -> None:
        with self._lock:
            self._slots[slot.generation] = slot
            self._point()

    def mark_whole(self, slot: Slot) -> None:
        with self._lock:
            slot.is_whole = True
            self._point()

    def to_open(self) -> list[Generation]:
        """Those that are to be open and are not; the serving one first."""
        with self._lock:
            roles = self._roles
            missing = set() if roles is None else roles.open - self._slots.keys() - self._closing
            return sorted(missing, key=lambda generation: (roles is None or generation != roles.serving, generation))

    def all(self) -> list[Slot]:
        """The serving one first."""
        with self._lock:
            return sorted(self._slots.values(), key=lambda slot: (slot is not self._serving, slot.generation))

    def beside(self) -> list[Slot]:
        """All but the serving one."""
        with self._lock:
            return [slot for slot in self._slots.values() if slot is not self._serving]

    def state_of(self, generation: Generation) -> State:
        """What the log says of it."""
        with self._lock:
            return "retired" if self._roles is None else self._roles.state_of(generation)

    def serving(self) -> Slot:
        """Raises RetrieverUnavailable."""
        with self._lock:
            return self._found_serving()

    def trial(self) -> Trial | None:
        """None if no canary answers."""
        with self._lock:
            return self._trial

    def check(self, generation: str | None) -> None:
        """Raises RequestRefused, RetrieverUnavailable."""
        with self._lock:
            self._find(Wish(generation))

    @contextmanager
    def asking(self, wishes: Sequence[Wish]) -> Iterator[list[Asked]]:
        """What each question is given, by the same state of the pointer. Within the block none of them is closed.
        Raises RequestRefused, RetrieverUnavailable."""
        with self._lock:
            asked = [self._find(wish) for wish in wishes]
            for slot, _ in asked:
                slot.num_asking += 1
        try:
            yield asked
        finally:
            with self._lock:
                for slot, _ in asked:
                    slot.num_asking -= 1
                if self._closing:
                    self._unasked.notify_all()

    def take_out(self) -> list[Slot]:
        """Those that are not to be open any more. From now on nobody new asks them. What serves stays until the pointer
        has moved to another one that is whole here."""
        with self._lock:
            if self._roles is None:
                return []
            wanted = self._roles.open
            gone = [slot for slot in self._slots.values() if slot.generation not in wanted and slot != self._serving]
            for slot in gone:
                del self._slots[slot.generation]
                self._closing.add(slot.generation)
            return gone

    def wait_until_unasked(self, slot: Slot, or_if: Callable[[], bool]) -> None:
        """Until its last question is answered. `or_if` is looked at again after `wake`."""
        with self._unasked:
            self._unasked.wait_for(lambda: slot.num_asking == 0 or or_if())

    def closed(self, generation: Generation) -> None:
        """It may be opened again."""
        with self._lock:
            self._closing.discard(generation)

    def wake(self) -> None:
        """Looks at all `or_if` again."""
        with self._unasked:
            self._unasked.notify_all()

    def _point(self) -> None:
        roles = self._roles
        if roles is None:
            return
        before, slot = self._serving, self._slots.get(roles.serving)
        if slot is not None and slot is not before and (slot.is_whole or before is None):
            self._serving = slot
            _log.info("a generation serves", generation=slot.generation, before=before and before.generation)
        self._trial = self._new_trial(roles)

    def _new_trial(self, roles: Roles) -> Trial | None:
        canary = roles.canary
        slot = None if canary is None else self._slots.get(canary.generation)
        if canary is None or slot is None or not slot.is_whole or self._serving in (None, slot):
            return None
        return Trial(canary, self._found_serving().generation)

    def _find(self, wish: Wish) -> Asked:
        if wish.generation is not None:
            return Asked(self._find_named(wish.generation))
        serving, trial = self._found_serving(), self._trial
        if trial is None or wish.member_id is None:
            return Asked(serving)
        canary = trial.canary
        if is_in_share(wish.member_id, canary.generation, canary.share):
            return Asked(self._slots[canary.generation], trial)
        return Asked(serving, trial)

    def _find_named(self, generation: str) -> Slot:
        slot = self._slots.get(Generation(generation))
        if slot is not None and (slot.is_whole or slot is self._serving):
            return slot
        if slot is not None or (self._roles is not None and generation in self._roles.open):
            raise RetrieverUnavailable(f"the generation {generation} is not complete here yet; try again")
        self._found_serving()
        served = sorted(slot.generation for slot in self._slots.values() if slot.is_whole or slot is self._serving)
        raise RequestRefused(
            f"generation: {generation} is not served; {' and '.join(served)} {'is' if len(served) == 1 else 'are'}",
            code=ProblemCode.UNKNOWN_GENERATION,
        )

    def _found_serving(self) -> Slot:
        if self._serving is None:
            raise RetrieverUnavailable("no generation is open here yet; try again")
        return self._serving
