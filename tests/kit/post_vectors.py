"""Generations that write `post-vectors` one after the other, and what stands in the topic."""

from datetime import UTC, datetime, timedelta

from schemas import topics
from schemas.ids import Generation
from schemas.post_vectors import PostVector, PostVectorsSwitch, decode_post_vector, decode_switch
from streams.encode.post_vectors.reign import Reign
from streams.encode.post_vectors.writer import PostVectorsOf
from streams.settings import KafkaSettings
from tests.kit.kafka.topics import read_topic

POST_VECTORS_DIMENSION = 6
_AT = datetime(2026, 1, 5, 10, tzinfo=UTC)


class Serving:
    """Which generation serves. The stages ask it instead of the log of the generations."""

    def __init__(self) -> None:
        self._generation = Generation("")
        self._moves = 0
        self._late: dict[Generation, Reign | None] = {}

    def promote(self, generation: Generation) -> None:
        self._generation = generation
        self._moves += 1

    def hears_nothing(self, generation: Generation) -> None:
        """From now on the stages of this generation believe what they know now, unless they ask again."""
        self._late[generation] = self._reign(generation, is_text=True)

    def post_vectors_of(self, generation: Generation, *, is_text: bool = True) -> PostVectorsOf:
        def reign() -> Reign | None:
            return self._late[generation] if generation in self._late else self._reign(generation, is_text=is_text)

        newest = lambda: self._reign(generation, is_text=is_text)  # noqa: E731
        return PostVectorsOf(POST_VECTORS_DIMENSION, is_text, reign, newest)

    def _reign(self, generation: Generation, *, is_text: bool) -> Reign | None:
        if generation != self._generation:
            return None
        return Reign(generation, _AT + timedelta(seconds=self._moves), POST_VECTORS_DIMENSION, is_text)


def newest_post_vectors(kafka: KafkaSettings) -> dict[str, PostVector | None]:
    """What compaction leaves: the newest record of each post; None for a tombstone."""
    return {
        (message.key() or b"").decode(): None if (value := message.value()) is None else decode_post_vector(value)
        for message in read_topic(kafka, topics.POST_VECTORS)
    }


def switches(kafka: KafkaSettings) -> list[PostVectorsSwitch]:
    """Oldest first."""
    return [decode_switch(message.value() or b"") for message in read_topic(kafka, topics.POST_VECTORS_SWITCH)]
